-- Finished orders, one row each: the resource as it was, and beside it what orders
-- are looked for by. Times are microseconds since 1970-01-01 UTC.
-- UIDs are ordered by their bytes, as programs that merge pages order them, and not
-- as the words of a language.
CREATE TABLE orders (
    uid         TEXT   COLLATE "C" PRIMARY KEY,
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
