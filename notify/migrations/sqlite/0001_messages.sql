-- Messages to customers: one a key, kept after delivery as the log.
-- Times are microseconds since 1970-01-01 UTC.
CREATE TABLE messages (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    key             TEXT    NOT NULL UNIQUE,
    login           TEXT    NOT NULL,
    email           TEXT    NOT NULL,
    text            TEXT    NOT NULL,
    created_at      BIGINT  NOT NULL,
    sent_at         BIGINT,           -- when the SMTP server accepted it
    attempts        BIGINT  NOT NULL, -- failed ones
    next_attempt_at BIGINT  NOT NULL, -- whoever tries it moves this on first
    last_error      TEXT
);
CREATE INDEX messages_by_login ON messages (login, id);
CREATE INDEX messages_due ON messages (next_attempt_at) WHERE sent_at IS NULL;
