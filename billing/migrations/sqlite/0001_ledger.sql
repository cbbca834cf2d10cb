-- Customers' accounts. The balance is kept, and always equals the sum of the
-- account's postings. Amounts are whole minor units (hundredths).
CREATE TABLE accounts (
    login        TEXT   PRIMARY KEY,
    balance      BIGINT NOT NULL DEFAULT 0 CHECK (balance BETWEEN 0 AND 99999999999999),
    register_key TEXT            -- the Idempotency-Key that the account was opened with
) WITHOUT ROWID;

-- Every request to move money and what became of it, refusals included: one row
-- a key, so that a repeat is answered with the first outcome.
CREATE TABLE transactions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT   NOT NULL CHECK (kind IN ('refill', 'charge', 'refund')),
    key        TEXT   NOT NULL,
    login      TEXT   NOT NULL,
    amount     BIGINT NOT NULL CHECK (amount > 0),
    outcome    TEXT   NOT NULL CHECK (outcome IN ('done', 'insufficient_funds', 'account_not_found', 'balance_limit', 'closed')),
    charge_key TEXT,            -- of a refund: the key of the charge that it gives back, in part or whole
    balance    BIGINT,          -- right after the movement, or at the refusal; null without an account
    created_at BIGINT NOT NULL, -- microseconds since 1970-01-01 UTC
    UNIQUE (kind, key)
);
CREATE INDEX refunds_of_charge ON transactions (charge_key) WHERE charge_key IS NOT NULL;

-- Double entry: the two postings of a done transaction sum to zero. Accounts
-- are 'customer:LOGIN', 'cash' (what customers paid in) and 'revenue'.
CREATE TABLE postings (
    transaction_id BIGINT NOT NULL REFERENCES transactions (id),
    account        TEXT   NOT NULL,
    amount         BIGINT NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (transaction_id, account)
) WITHOUT ROWID;

CREATE TRIGGER transactions_no_update BEFORE UPDATE ON transactions
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER transactions_no_delete BEFORE DELETE ON transactions
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_no_update BEFORE UPDATE ON postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_no_delete BEFORE DELETE ON postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
