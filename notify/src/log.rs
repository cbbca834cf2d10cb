//! The log of messages, which is also the queue of those still to deliver.

use std::time::Duration;

use jiff::Timestamp;
use orders_service::database::{Database, Kind, Migrations, json};
use sqlx::FromRow;

use crate::{
    error::NotifyError,
    group_commit::{self, NoteSentTogether, StoreTogether, Storing},
};

/// The schema of the messages' database.
pub const MIGRATIONS: Migrations =
    Migrations { sqlite: &sqlx::migrate!("migrations/sqlite"), postgres: &sqlx::migrate!("migrations/postgres") };

/// The most messages that one look at a login's log shows, the latest ones.
pub const LOG_LIMIT: i64 = 1000;

/// A message as stored. Times are microseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Message {
    /// Number in order of arrival.
    pub id: i64,
    /// What makes it one message however often it is asked for.
    pub key: String,
    /// The customer.
    pub login: String,
    /// Where to.
    pub email: String,
    /// What it says.
    pub text: String,
    /// When it was stored.
    pub created_at: i64,
    /// When the mail server accepted it.
    pub sent_at: Option<i64>,
    /// How often delivery failed.
    pub attempts: i64,
    /// Not tried before this time.
    pub next_attempt_at: i64,
    /// Why delivery failed last.
    pub last_error: Option<String>,
    /// When it was given up, if it was.
    pub dead_at: Option<i64>,
    /// How often it was asked to be sent again after it had been given up.
    pub resends: i64,
}

/// How a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The mail server accepted it.
    Sent,
    /// It is being tried.
    Delivering,
    /// It was tried often enough in vain.
    DeadLettered,
}

impl Message {
    /// How it stands.
    pub fn state(&self) -> State {
        match (self.sent_at, self.dead_at) {
            (Some(_), _) => State::Sent,
            (None, Some(_)) => State::DeadLettered,
            (None, None) => State::Delivering,
        }
    }
}

/// A message to store.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// What makes it one message however often it is asked for.
    pub key: String,
    /// The customer.
    pub login: String,
    /// Where to.
    pub email: String,
    /// What it says.
    pub text: String,
    /// How often it was asked to be sent again after it had been given up; it is
    /// tried anew if it was not asked so often before.
    pub resends: i64,
}

/// The messages in their database.
#[derive(Clone, Debug)]
pub struct Log {
    database: Database,
    storing: StoreTogether,
    noting_sent: NoteSentTogether,
}

impl Log {
    /// The messages in this database, whose schema is [`MIGRATIONS`]. Within a Tokio runtime.
    pub fn new(database: Database) -> Self {
        let storing = group_commit::store_together(database.clone());
        let noting_sent = group_commit::note_sent_together(database.clone());
        Log { database, storing, noting_sent }
    }

    /// Stores a message once for its key. The caller has it to itself for
    /// `lease`; if it neither delivers nor postpones it by then, somebody else
    /// tries. Returns the stored message and whether it is new, or asked for anew
    /// after it had been given up.
    ///
    /// # Errors
    /// [`NotifyError::KeyReused`] if the key is another message's, or the database's.
    pub async fn store(&self, new: &NewMessage, lease: Duration) -> Result<(Message, bool), NotifyError> {
        let storing = || Storing { message: new.clone(), lease };
        let stored = match self.storing.ask(storing()).await? {
            Some(message) => Some(message),
            None => group_commit::store(&self.database, &[storing()]).await?.pop(),
        };
        if let Some(message) = stored {
            return Ok((message, true));
        }
        let first = self.find(&new.key).await?.ok_or(sqlx::Error::RowNotFound)?;
        if (&first.login, &first.email, &first.text) != (&new.login, &new.email, &new.text) {
            return Err(NotifyError::KeyReused);
        }
        if first.state() == State::DeadLettered
            && first.resends < new.resends
            && let Some(revived) = self.revive(&first, new.resends, lease).await?
        {
            return Ok((revived, true));
        }
        Ok((first, false))
    }

    /// Has a message that was given up tried anew, if nobody else just did; `resends`
    /// is how often that was asked for by now. The caller has it to itself for `lease`.
    ///
    /// # Errors
    /// The database's.
    pub async fn revive(&self, message: &Message, resends: i64, lease: Duration) -> Result<Option<Message>, NotifyError> {
        let revived = sqlx::query_as(
            "UPDATE messages SET dead_at = NULL, attempts = 0, resends = $2, next_attempt_at = $3
             WHERE id = $1 AND dead_at IS NOT NULL AND resends = $4 RETURNING *",
        )
        .bind(message.id)
        .bind(resends)
        .bind((Timestamp::now() + lease).as_microsecond())
        .bind(message.resends)
        .fetch_optional(&self.database.pool)
        .await?;
        Ok(revived)
    }

    /// The message with this number.
    ///
    /// # Errors
    /// The database's.
    pub async fn numbered(&self, id: i64) -> Result<Option<Message>, NotifyError> {
        let found = sqlx::query_as("SELECT * FROM messages WHERE id = $1").bind(id);
        Ok(found.fetch_optional(&self.database.pool).await?)
    }

    /// The message stored under a key.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(&self, key: &str) -> Result<Option<Message>, NotifyError> {
        let found = sqlx::query_as("SELECT * FROM messages WHERE key = $1").bind(key);
        Ok(found.fetch_optional(&self.database.pool).await?)
    }

    /// The latest [`LOG_LIMIT`] messages of a login, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn of_login(&self, login: &str) -> Result<Vec<Message>, NotifyError> {
        let mut latest: Vec<Message> = sqlx::query_as("SELECT * FROM messages WHERE login = $1 ORDER BY id DESC LIMIT $2")
            .bind(login)
            .bind(LOG_LIMIT)
            .fetch_all(&self.database.pool)
            .await?;
        latest.reverse();
        Ok(latest)
    }

    /// Up to `limit` messages after the one numbered `after`, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn page(&self, after: i64, limit: i64) -> Result<Vec<Message>, NotifyError> {
        let page = sqlx::query_as("SELECT * FROM messages WHERE id > $1 ORDER BY id LIMIT $2").bind(after).bind(limit);
        Ok(page.fetch_all(&self.database.pool).await?)
    }

    /// Takes up to `limit` messages that are due, but for those with the numbers `in_flight`,
    /// for `lease`: nobody else gets them before it is over.
    ///
    /// # Errors
    /// The database's.
    pub async fn claim_due(&self, limit: i64, lease: Duration, in_flight: &[i64]) -> Result<Vec<Message>, NotifyError> {
        let sql = match self.database.kind {
            // The outer condition is looked at again for a row that another replica just took.
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

    /// Notes that the mail server accepted the message. Returns the message after it;
    /// `None` if that was noted before.
    ///
    /// # Errors
    /// The database's: unless it is noted later, it is delivered again after the lease, with the same Message-ID.
    pub async fn sent(&self, id: i64) -> Result<Option<Message>, NotifyError> {
        match self.noting_sent.ask(id).await? {
            Some(message) => Ok(Some(message)),
            None => Ok(group_commit::note_sent(&self.database, &[id]).await?.pop()),
        }
    }

    /// Notes a failed attempt; the next one is due after `delay`, or never if there is none.
    /// Returns the message after it; `None` if it was sent after all.
    ///
    /// # Errors
    /// The database's: then it is tried again after the lease.
    pub async fn failed(&self, id: i64, error: &str, delay: Option<Duration>) -> Result<Option<Message>, NotifyError> {
        let now = Timestamp::now();
        let failed = sqlx::query_as(
            "UPDATE messages SET attempts = attempts + 1, last_error = $2, next_attempt_at = $3, dead_at = $4
             WHERE id = $1 AND sent_at IS NULL RETURNING *",
        )
        .bind(id)
        .bind(error)
        .bind((now + delay.unwrap_or_default()).as_microsecond())
        .bind(delay.is_none().then(|| now.as_microsecond()))
        .fetch_optional(&self.database.pool)
        .await?;
        Ok(failed)
    }

    /// Gives a message back untried: it is due at once.
    ///
    /// # Errors
    /// The database's: then it is due after the lease.
    pub async fn release(&self, id: i64) -> Result<(), NotifyError> {
        sqlx::query("UPDATE messages SET next_attempt_at = $2 WHERE id = $1 AND sent_at IS NULL")
            .bind(id)
            .bind(Timestamp::now().as_microsecond())
            .execute(&self.database.pool)
            .await?;
        Ok(())
    }
}
