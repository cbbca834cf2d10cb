//! The two writes that every message costs, those of several messages in one statement.
//!
//! Who is left out, since its key is known or it was noted as sent before, or whose
//! statement failed, has it made for itself alone and learns why. Of a statement that took
//! effect and seemed to fail the messages are leased to nobody, and tried when that is over.

use std::time::Duration;

use jiff::Timestamp;
use orders_service::{
    database::{Database, Kind, json},
    group_commit::GroupCommit,
};
use serde::Serialize;

use crate::log::{Message, NewMessage};

/// Stores messages whose keys are new.
pub(crate) type StoreTogether = GroupCommit<Storing, Message>;

/// Notes of messages, by their numbers, that the mail server accepted them, if that was not noted before.
pub(crate) type NoteSentTogether = GroupCommit<i64, Message>;

/// A message to store, and for how long it is the caller's from then on.
#[derive(Clone, Debug)]
pub(crate) struct Storing {
    pub(crate) message: NewMessage,
    pub(crate) lease: Duration,
}

/// A message as the statement reads it. Times are microseconds since 1970-01-01 UTC.
#[derive(Serialize)]
struct Row<'a> {
    key: &'a str,
    login: &'a str,
    email: &'a str,
    text: &'a str,
    created_at: i64,
    next_attempt_at: i64,
    resends: i64,
}

impl<'a> Row<'a> {
    /// The lease begins now, not when the message began to wait for its statement.
    fn new(Storing { message, lease }: &'a Storing, now: Timestamp) -> Self {
        Row {
            key: &message.key,
            login: &message.login,
            email: &message.email,
            text: &message.text,
            created_at: now.as_microsecond(),
            next_attempt_at: (now + *lease).as_microsecond(),
            resends: message.resends,
        }
    }
}

/// The way to this database for messages to store.
pub(crate) fn store_together(database: Database) -> StoreTogether {
    GroupCommit::new(move |messages: Vec<Storing>| {
        let database = database.clone();
        async move {
            let stored = store(&database, &messages).await?;
            Ok(in_place(stored, |stored| messages.iter().position(|asked| asked.message.key == stored.key)))
        }
    })
}

/// The way to this database for messages that were sent.
pub(crate) fn note_sent_together(database: Database) -> NoteSentTogether {
    GroupCommit::new(move |ids: Vec<i64>| {
        let database = database.clone();
        async move {
            let noted = note_sent(&database, &ids).await?;
            Ok(in_place(noted, |noted| ids.iter().position(|id| *id == noted.id)))
        }
    })
}

/// Each message with the place of the first request that it answers.
fn in_place(messages: Vec<Message>, place: impl Fn(&Message) -> Option<usize>) -> Vec<(usize, Message)> {
    messages.into_iter().filter_map(|message| Some((place(&message)?, message))).collect()
}

/// Stores those whose key is new, and returns them. In the order of their keys, so that two replicas
/// that are given the same ones do not wait for each other in a circle.
pub(crate) async fn store(database: &Database, messages: &[Storing]) -> Result<Vec<Message>, sqlx::Error> {
    let sql = match database.kind {
        Kind::Postgres => {
            "INSERT INTO messages (key, login, email, text, created_at, attempts, next_attempt_at, resends)
             SELECT key, login, email, text, created_at, 0, next_attempt_at, resends FROM json_to_recordset($1::json) AS asked
                 (key TEXT, login TEXT, email TEXT, text TEXT, created_at BIGINT, next_attempt_at BIGINT, resends BIGINT)
             ORDER BY key
             ON CONFLICT (key) DO NOTHING RETURNING *"
        }
        Kind::Sqlite => {
            "INSERT INTO messages (key, login, email, text, created_at, attempts, next_attempt_at, resends)
             SELECT value ->> 'key', value ->> 'login', value ->> 'email', value ->> 'text', value ->> 'created_at', 0,
                 value ->> 'next_attempt_at', value ->> 'resends' FROM json_each($1) WHERE true
             ON CONFLICT (key) DO NOTHING RETURNING *"
        }
    };
    let now = Timestamp::now();
    let rows: Vec<Row> = messages.iter().map(|message| Row::new(message, now)).collect();
    sqlx::query_as(sql).bind(json(&rows)?).fetch_all(&database.pool).await
}

/// Notes of those that the mail server accepted them, and returns them, if it was not noted before.
pub(crate) async fn note_sent(database: &Database, ids: &[i64]) -> Result<Vec<Message>, sqlx::Error> {
    let sql = match database.kind {
        // As an array: a join would be planned as a look through all of the table while that is small, and stay so.
        Kind::Postgres => {
            "UPDATE messages SET sent_at = $2, last_error = NULL, dead_at = NULL
             WHERE id = ANY (translate($1, '[]', '{}')::BIGINT[]) AND sent_at IS NULL RETURNING *"
        }
        Kind::Sqlite => {
            "UPDATE messages SET sent_at = $2, last_error = NULL, dead_at = NULL
             WHERE id IN (SELECT value FROM json_each($1)) AND sent_at IS NULL RETURNING *"
        }
    };
    let now = Timestamp::now().as_microsecond();
    sqlx::query_as(sql).bind(json(&ids)?).bind(now).fetch_all(&database.pool).await
}
