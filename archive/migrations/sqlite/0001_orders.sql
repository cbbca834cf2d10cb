-- Finished orders, one row each: the resource as it was, and beside it what orders
-- are looked for by. Times are microseconds since 1970-01-01 UTC.
CREATE TABLE orders (
    uid         TEXT   NOT NULL PRIMARY KEY,
    namespace   TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    id          BIGINT,          -- spec.id; orders made with kubectl have none
    login       TEXT   NOT NULL,
    amount      BIGINT NOT NULL, -- whole minor units (hundredths)
    state       TEXT   NOT NULL, -- the reason of the condition Succeeded
    created_at  BIGINT NOT NULL, -- when the resource was created
    revision    BIGINT NOT NULL, -- resourceVersion: a larger one replaces a smaller one
    archived_at BIGINT NOT NULL, -- when this revision came
    resource    TEXT   NOT NULL  -- JSON
);
-- Each ends in an order's place in the listing, so that a page is read from where it
-- begins to where it ends, however many rows there are.
CREATE INDEX orders_by_time ON orders (namespace, created_at, uid);
CREATE INDEX orders_by_login ON orders (namespace, login, created_at, uid);
CREATE INDEX orders_by_state ON orders (namespace, state, created_at, uid);
CREATE INDEX orders_by_name ON orders (namespace, name, created_at, uid);

-- Nobody runs ANALYZE here, and without figures SQLite takes orders_by_time for every
-- page and reads past all orders of other logins. So it is told what to expect: the
-- rows, then how many of them have the same first column, first two columns and so on.
ANALYZE;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('orders', 'sqlite_autoindex_orders_1', '1000000 1'),
    ('orders', 'orders_by_time', '1000000 1000000 2 1'),
    ('orders', 'orders_by_login', '1000000 1000000 100 1 1'),
    ('orders', 'orders_by_state', '1000000 1000000 200000 2 1'),
    ('orders', 'orders_by_name', '1000000 1000000 1 1 1');
ANALYZE sqlite_schema; -- reads them
