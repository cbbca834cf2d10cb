-- Outcomes of charges that still have to be told over the broker, written in the
-- same transaction as the charge itself and deleted once the broker has them.
CREATE TABLE outbox (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id BIGINT NOT NULL REFERENCES transactions (id),
    email          TEXT   NOT NULL -- where the customer is to be told
);
