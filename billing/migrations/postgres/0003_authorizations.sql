-- A charge is authorized when it is made, and later captured or voided. A capture and a void are
-- transactions of their own: from the account 'authorized' to 'revenue', or back to the customer.
-- NOT VALID: the rows so far satisfy the narrower constraint, so they need no scan.
ALTER TABLE transactions DROP CONSTRAINT transactions_kind_check;
ALTER TABLE transactions ADD CONSTRAINT transactions_kind_check
    CHECK (kind IN ('refill', 'charge', 'capture', 'void', 'refund')) NOT VALID;

-- The charges that are neither captured nor voided. A row is deleted in the database transaction
-- that records the capture or the void. A charge without a row was captured when it was made.
CREATE TABLE authorizations (
    transaction_id BIGINT PRIMARY KEY REFERENCES transactions (id),
    charge_key     TEXT   NOT NULL UNIQUE,
    reference      TEXT   NOT NULL UNIQUE, -- what is charged; at most one authorization each
    metadata       TEXT   NOT NULL,        -- JSON of the caller
    created_at     BIGINT NOT NULL         -- microseconds since 1970-01-01 UTC
);
