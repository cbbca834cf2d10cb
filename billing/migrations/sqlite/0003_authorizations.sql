-- A charge is authorized when it is made, and later captured or voided. A capture and a void are
-- transactions of their own: from the account 'authorized' to 'revenue', or back to the customer.
-- SQLite cannot change a CHECK constraint, so the table is copied, and with it the tables that
-- reference it.
CREATE TABLE new_transactions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT   NOT NULL CHECK (kind IN ('refill', 'charge', 'capture', 'void', 'refund')),
    key        TEXT   NOT NULL,
    login      TEXT   NOT NULL,
    amount     BIGINT NOT NULL CHECK (amount > 0),
    outcome    TEXT   NOT NULL CHECK (outcome IN ('done', 'insufficient_funds', 'account_not_found', 'balance_limit', 'closed')),
    charge_key TEXT,            -- of a capture, a void or a refund: the key of the charge
    balance    BIGINT,          -- right after the movement, or at the refusal; null without an account, and of a capture
    created_at BIGINT NOT NULL, -- microseconds since 1970-01-01 UTC
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
INSERT INTO new_transactions (id, kind, key, login, amount, outcome, charge_key, balance, created_at)
    SELECT id, kind, key, login, amount, outcome, charge_key, balance, created_at FROM transactions ORDER BY id;
INSERT INTO new_postings SELECT transaction_id, account, amount FROM postings;
INSERT INTO new_outbox SELECT id, transaction_id, email FROM outbox;
DROP TABLE outbox;
DROP TABLE postings;
DROP TABLE transactions;
ALTER TABLE new_transactions RENAME TO transactions;
ALTER TABLE new_postings RENAME TO postings;
ALTER TABLE new_outbox RENAME TO outbox;

CREATE INDEX refunds_of_charge ON transactions (charge_key) WHERE charge_key IS NOT NULL;
CREATE TRIGGER transactions_no_update BEFORE UPDATE ON transactions
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER transactions_no_delete BEFORE DELETE ON transactions
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_no_update BEFORE UPDATE ON postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_no_delete BEFORE DELETE ON postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- The charges that are neither captured nor voided. A row is deleted in the database transaction
-- that records the capture or the void. A charge without a row was captured when it was made.
CREATE TABLE authorizations (
    transaction_id BIGINT PRIMARY KEY REFERENCES transactions (id),
    charge_key     TEXT   NOT NULL UNIQUE,
    reference      TEXT   NOT NULL UNIQUE, -- what is charged; at most one authorization each
    metadata       TEXT   NOT NULL,        -- JSON of the caller
    created_at     BIGINT NOT NULL         -- microseconds since 1970-01-01 UTC
);
