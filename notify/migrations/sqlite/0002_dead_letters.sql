-- A message that was tried often enough in vain is dead until somebody asks for it to be sent again.
ALTER TABLE messages ADD COLUMN dead_at BIGINT;                     -- since when
ALTER TABLE messages ADD COLUMN resends BIGINT NOT NULL DEFAULT 0;  -- how often it was asked for
DROP INDEX messages_due;
CREATE INDEX messages_due ON messages (next_attempt_at) WHERE sent_at IS NULL AND dead_at IS NULL;
