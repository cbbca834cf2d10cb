-- The name of an order is good once: at most one charge of a reference is ever made. NOT VALID: the
-- rows so far satisfy the narrower constraint, so they need no scan.
ALTER TABLE transactions DROP CONSTRAINT transactions_outcome_check;
ALTER TABLE transactions ADD CONSTRAINT transactions_outcome_check
    CHECK (outcome IN ('done', 'insufficient_funds', 'account_not_found', 'balance_limit', 'closed', 'already_exists')) NOT VALID;

-- What an authorized charge is for; null of all other transactions, and of refused charges.
ALTER TABLE transactions ADD COLUMN reference TEXT;
ALTER TABLE transactions DISABLE TRIGGER transactions_append_only;
UPDATE transactions SET reference = authorizations.reference FROM authorizations
    WHERE transactions.id = authorizations.transaction_id;
ALTER TABLE transactions ENABLE TRIGGER transactions_append_only;
CREATE UNIQUE INDEX charges_by_reference ON transactions (reference) WHERE reference IS NOT NULL;
