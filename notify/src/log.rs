//! The log of messages. It is also the queue of the messages that notify has yet to deliver.

use std::time::Duration;

use jiff::Timestamp;
use orders_service::database::{Database, Kind, Migrations, json};

use crate::{
    error::NotifyError,
    group_commit::{self, MarkSentBatcher, StoreBatcher, StoreRequest},
    message::{Message, NewMessage, State},
};

/// The schema of the messages' database.
pub const MIGRATIONS: Migrations =
    Migrations { sqlite: &sqlx::migrate!("migrations/sqlite"), postgres: &sqlx::migrate!("migrations/postgres") };

/// The maximum number of messages that the log of a login shows. It shows the latest messages.
pub const LOG_LIMIT: i64 = 1000;

/// The log of messages and its database.
#[derive(Clone, Debug)]
pub struct Log {
    database: Database,
    store_batcher: StoreBatcher,
    mark_sent_batcher: MarkSentBatcher,
}

impl Log {
    /// Creates a log on this database, whose schema is [`MIGRATIONS`]. The call needs a Tokio
    /// runtime.
    pub fn new(database: Database) -> Self {
        let store_batcher = group_commit::start_store_batcher(database.clone());
        let mark_sent_batcher = group_commit::start_mark_sent_batcher(database.clone());
        Log { database, store_batcher, mark_sent_batcher }
    }

    /// Stores a message once for its key. The caller leases the message for the duration `lease`.
    /// If the caller neither delivers nor postpones the message within the lease, another replica
    /// tries to deliver it. Returns the stored message. Also returns whether the message is new, or
    /// was requested again after delivery had been given up.
    ///
    /// # Errors
    /// [`NotifyError::KeyReused`] if the key belongs to another message, or
    /// [`NotifyError::Database`].
    pub async fn store(&self, new: &NewMessage, lease: Duration) -> Result<(Message, bool), NotifyError> {
        let request = || StoreRequest { message: new.clone(), lease };
        let stored = match self.store_batcher.execute(request()).await? {
            Some(message) => Some(message),
            None => group_commit::store(&self.database, &[request()]).await?.pop(),
        };
        if let Some(message) = stored {
            return Ok((message, true));
        }
        let first = self.find_by_key(&new.key).await?.ok_or(sqlx::Error::RowNotFound)?;
        if (&first.login, &first.email, &first.text) != (&new.login, &new.email, &new.text) {
            return Err(NotifyError::KeyReused);
        }
        if first.state() == State::DeadLettered
            && first.resends < new.resends
            && let Some(requeued) = self.requeue(&first, new.resends, lease).await?
        {
            return Ok((requeued, true));
        }
        Ok((first, false))
    }

    /// Puts a message whose delivery was given up back into the queue. `resends` is the number of
    /// resends that were requested so far. The caller leases the message for the duration `lease`.
    /// Returns `None` if a concurrent caller requeued the message first.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn requeue(&self, message: &Message, resends: i64, lease: Duration) -> Result<Option<Message>, NotifyError> {
        let requeued = sqlx::query_as(
            "UPDATE messages SET dead_at = NULL, attempts = 0, resends = $2, next_attempt_at = $3
             WHERE id = $1 AND dead_at IS NOT NULL AND resends = $4 RETURNING *",
        )
        .bind(message.id)
        .bind(resends)
        .bind((Timestamp::now() + lease).as_microsecond())
        .bind(message.resends)
        .fetch_optional(&self.database.pool)
        .await?;
        Ok(requeued)
    }

    /// Returns the message with this ID.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn find_by_id(&self, id: i64) -> Result<Option<Message>, NotifyError> {
        let found = sqlx::query_as("SELECT * FROM messages WHERE id = $1").bind(id);
        Ok(found.fetch_optional(&self.database.pool).await?)
    }

    /// Returns the message that is stored under a key.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn find_by_key(&self, key: &str) -> Result<Option<Message>, NotifyError> {
        let found = sqlx::query_as("SELECT * FROM messages WHERE key = $1").bind(key);
        Ok(found.fetch_optional(&self.database.pool).await?)
    }

    /// Returns the latest [`LOG_LIMIT`] messages of a login, oldest first.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn find_by_login(&self, login: &str) -> Result<Vec<Message>, NotifyError> {
        let mut latest: Vec<Message> = sqlx::query_as("SELECT * FROM messages WHERE login = $1 ORDER BY id DESC LIMIT $2")
            .bind(login)
            .bind(LOG_LIMIT)
            .fetch_all(&self.database.pool)
            .await?;
        latest.reverse();
        Ok(latest)
    }

    /// Returns up to `limit` messages whose IDs are greater than `after`, in the order of their
    /// IDs.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn page(&self, after: i64, limit: i64) -> Result<Vec<Message>, NotifyError> {
        let page = sqlx::query_as("SELECT * FROM messages WHERE id > $1 ORDER BY id LIMIT $2").bind(after).bind(limit);
        Ok(page.fetch_all(&self.database.pool).await?)
    }

    /// Leases up to `limit` due messages for the duration `lease`, except those whose IDs are in
    /// `in_flight`. No other caller gets these messages before the lease expires.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn claim_due(&self, limit: i64, lease: Duration, in_flight: &[i64]) -> Result<Vec<Message>, NotifyError> {
        let sql = match self.database.kind {
            // PostgreSQL evaluates the outer condition again for a row that another replica has
            // just leased.
            Kind::Postgres => {
                "UPDATE messages SET next_attempt_at = $2
                 WHERE sent_at IS NULL AND dead_at IS NULL AND next_attempt_at <= $1 AND id IN (
                     SELECT id FROM messages WHERE sent_at IS NULL AND dead_at IS NULL AND next_attempt_at <= $1
                         AND id <> ALL (translate($4, '[]', '{}')::BIGINT[])
                     ORDER BY next_attempt_at LIMIT $3
                 ) RETURNING *"
            }
            Kind::Sqlite => {
                "UPDATE messages SET next_attempt_at = $2
                 WHERE id IN (
                     SELECT id FROM messages WHERE sent_at IS NULL AND dead_at IS NULL AND next_attempt_at <= $1
                         AND id NOT IN (SELECT value FROM json_each($4))
                     ORDER BY next_attempt_at LIMIT $3
                 ) RETURNING *"
            }
        };
        let now = Timestamp::now();
        let claimed = sqlx::query_as(sql)
            .bind(now.as_microsecond())
            .bind((now + lease).as_microsecond())
            .bind(limit)
            .bind(json(&in_flight)?)
            .fetch_all(&self.database.pool)
            .await?;
        Ok(claimed)
    }

    /// Renews the lease on a message that expires at `expiry` (microseconds since 1970-01-01 UTC), for the
    /// duration `lease`. Returns the new expiry, or `None` if the caller no longer holds the lease.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn renew_lease(&self, id: i64, expiry: i64, lease: Duration) -> Result<Option<i64>, NotifyError> {
        let renewed = sqlx::query_scalar(
            "UPDATE messages SET next_attempt_at = $3
             WHERE id = $1 AND next_attempt_at = $2 AND sent_at IS NULL AND dead_at IS NULL RETURNING next_attempt_at",
        )
        .bind(id)
        .bind(expiry)
        .bind((Timestamp::now() + lease).as_microsecond());
        Ok(renewed.fetch_optional(&self.database.pool).await?)
    }

    /// Records that the mail server accepted the message. Returns the updated message, or `None` if
    /// this was recorded before.
    ///
    /// # Errors
    /// [`NotifyError::Database`]. Unless the acceptance is recorded later, the message is delivered
    /// again after the lease, with the same Message-ID.
    pub async fn mark_sent(&self, id: i64) -> Result<Option<Message>, NotifyError> {
        match self.mark_sent_batcher.execute(id).await? {
            Some(message) => Ok(Some(message)),
            None => Ok(group_commit::mark_sent(&self.database, &[id]).await?.pop()),
        }
    }

    /// Records a failed attempt. The next attempt is due after `delay`. If `delay` is `None`,
    /// delivery is given up. Returns the updated message, or `None` if the message is already
    /// recorded as sent.
    ///
    /// # Errors
    /// [`NotifyError::Database`]. In this case, the message is tried again after the lease.
    pub async fn record_failure(&self, id: i64, error: &str, delay: Option<Duration>) -> Result<Option<Message>, NotifyError> {
        let now = Timestamp::now();
        let updated = sqlx::query_as(
            "UPDATE messages SET attempts = attempts + 1, last_error = $2, next_attempt_at = $3, dead_at = $4
             WHERE id = $1 AND sent_at IS NULL RETURNING *",
        )
        .bind(id)
        .bind(error)
        .bind((now + delay.unwrap_or_default()).as_microsecond())
        .bind(delay.is_none().then(|| now.as_microsecond()))
        .fetch_optional(&self.database.pool)
        .await?;
        Ok(updated)
    }

    /// Ends the lease of a message without an attempt. The message is due immediately.
    ///
    /// # Errors
    /// [`NotifyError::Database`]. In this case, the message is due after the lease.
    pub async fn release(&self, id: i64) -> Result<(), NotifyError> {
        sqlx::query("UPDATE messages SET next_attempt_at = $2 WHERE id = $1 AND sent_at IS NULL")
            .bind(id)
            .bind(Timestamp::now().as_microsecond())
            .execute(&self.database.pool)
            .await?;
        Ok(())
    }
}
