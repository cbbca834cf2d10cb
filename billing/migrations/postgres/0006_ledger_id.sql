-- The ID of this ledger, which the operator compares with the one that orders belong to. The first
-- request for it writes it.
CREATE TABLE ledger_id (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    id        TEXT    NOT NULL
);
