-- The name of an order is good once: at most one charge of a reference is ever made. SQLite cannot
-- change a CHECK constraint, so the table is copied, and with it the tables that reference it.
CREATE TABLE new_transactions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT   NOT NULL CHECK (kind IN ('refill', 'charge', 'capture', 'void', 'refund')),
    key        TEXT   NOT NULL,
    login      TEXT   NOT NULL,
    amount     BIGINT NOT NULL CHECK (amount > 0),
    outcome    TEXT   NOT NULL CHECK (outcome IN ('done', 'insufficient_funds', 'account_not_found', 'balance_limit', 'closed', 'already_exists')),
    charge_key TEXT,            -- of a capture, a void or a refund: the key of the charge
    balance    BIGINT,          -- right after the movement, or at the refusal; null without an account, and of a capture
    created_at BIGINT NOT NULL, -- microseconds since 1970-01-01 UTC
    reference  TEXT,            -- what an authorized charge is for; null of all others, and of refused charges
    UNIQUE (kind, key)
);
CREATE TABLE new_postings (
    transaction_id BIGINT NOT NULL REFERENCES new_transactions (id),
    account        TEXT   NOT NULL,
    amount         BIGINT NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (transaction_id, account)
) WITHOUT ROWID;
CREATE TABLE new_outbox (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_id BIGINT NOT NULL REFERENCES new_transactions (id),
    email          TEXT   NOT NULL -- where the customer is to be told
);
CREATE TABLE new_authorizations (
    transaction_id BIGINT PRIMARY KEY REFERENCES new_transactions (id),
    charge_key     TEXT   NOT NULL UNIQUE,
    reference      TEXT   NOT NULL UNIQUE, -- what is charged
    metadata       TEXT   NOT NULL,        -- JSON of the caller
    created_at     BIGINT NOT NULL         -- microseconds since 1970-01-01 UTC
);
INSERT INTO new_transactions (id, kind, key, login, amount, outcome, charge_key, balance, created_at, reference)
    SELECT id, kind, key, login, amount, outcome, charge_key, balance, created_at,
        (SELECT reference FROM authorizations WHERE transaction_id = transactions.id)
    FROM transactions ORDER BY id;
INSERT INTO new_postings SELECT transaction_id, account, amount FROM postings;
INSERT INTO new_outbox SELECT id, transaction_id, email FROM outbox;
INSERT INTO new_authorizations SELECT transaction_id, charge_key, reference, metadata, created_at FROM authorizations;
DROP TABLE authorizations;
DROP TABLE outbox;
DROP TABLE postings;
DROP TABLE transactions;
ALTER TABLE new_transactions RENAME TO transactions;
ALTER TABLE new_postings RENAME TO postings;
ALTER TABLE new_outbox RENAME TO outbox;
ALTER TABLE new_authorizations RENAME TO authorizations;

CREATE INDEX refunds_of_charge ON transactions (charge_key) WHERE charge_key IS NOT NULL;
CREATE UNIQUE INDEX charges_by_reference ON transactions (reference) WHERE reference IS NOT NULL;
CREATE TRIGGER transactions_no_update BEFORE UPDATE ON transactions
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER transactions_no_delete BEFORE DELETE ON transactions
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_no_update BEFORE UPDATE ON postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_no_delete BEFORE DELETE ON postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
