-- A refill does not raise a balance above 999999999999.99, which billing checks. A refund and a void
-- may, up to the largest number that clients read exactly. SQLite cannot change a CHECK constraint, so
-- the table is copied.
CREATE TABLE new_accounts (
    login        TEXT   PRIMARY KEY,
    balance      BIGINT NOT NULL DEFAULT 0 CHECK (balance BETWEEN 0 AND 999999999999999),
    register_key TEXT            -- the Idempotency-Key that the account was opened with
) WITHOUT ROWID;
INSERT INTO new_accounts SELECT login, balance, register_key FROM accounts;
DROP TABLE accounts;
ALTER TABLE new_accounts RENAME TO accounts;
