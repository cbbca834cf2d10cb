//! Group commit of the two writes that every message needs: the writes of several messages share
//! one statement.
//!
//! The statement leaves out a message whose key is stored, or which was recorded as sent before. The
//! caller then makes the write for that message alone and learns the reason. The caller does the
//! same after a failed statement. If a statement took effect but seemed to fail, no caller acts on
//! the leases of its messages, and the messages are tried when the leases expire.

use std::time::Duration;

use jiff::Timestamp;
use orders_service::{
    database::{Database, Kind, json},
    group_commit::GroupCommit,
};
use serde::Serialize;

use crate::message::{Message, NewMessage};

/// Stores messages whose keys are new, in batches.
pub(crate) type StoreBatcher = GroupCommit<StoreRequest, Message>;

/// Records in batches that the mail server accepted the messages with these IDs, except those for
/// which this was recorded before.
pub(crate) type MarkSentBatcher = GroupCommit<i64, Message>;

/// A message to store, and the duration of the caller's lease from then on.
#[derive(Clone, Debug)]
pub(crate) struct StoreRequest {
    pub(crate) message: NewMessage,
    pub(crate) lease: Duration,
}

/// A message in the form that the statement reads. Times are microseconds since 1970-01-01 UTC.
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
    /// Creates the row of a request. The lease begins now, not when the request entered the queue.
    fn new(StoreRequest { message, lease }: &'a StoreRequest, now: Timestamp) -> Self {
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

/// Starts the group commit that stores messages in this database.
pub(crate) fn start_store_batcher(database: Database) -> StoreBatcher {
    GroupCommit::new(move |requests: Vec<StoreRequest>| {
        let database = database.clone();
        async move {
            let stored = store(&database, &requests).await?;
            Ok(with_request_index(stored, |stored| requests.iter().position(|request| request.message.key == stored.key)))
        }
    })
}

/// Starts the group commit that records messages as sent in this database.
pub(crate) fn start_mark_sent_batcher(database: Database) -> MarkSentBatcher {
    GroupCommit::new(move |ids: Vec<i64>| {
        let database = database.clone();
        async move {
            let sent = mark_sent(&database, &ids).await?;
            Ok(with_request_index(sent, |sent| ids.iter().position(|id| *id == sent.id)))
        }
    })
}

/// Pairs each message with the index of the first request for it.
fn with_request_index(messages: Vec<Message>, index: impl Fn(&Message) -> Option<usize>) -> Vec<(usize, Message)> {
    messages.into_iter().filter_map(|message| Some((index(&message)?, message))).collect()
}

/// Stores the messages whose keys are new, and returns them. The statement inserts the messages in
/// the order of their keys, so that two replicas that store the same messages do not deadlock.
pub(crate) async fn store(database: &Database, requests: &[StoreRequest]) -> Result<Vec<Message>, sqlx::Error> {
    let sql = match database.kind {
        Kind::Postgres => {
            "INSERT INTO messages (key, login, email, text, created_at, attempts, next_attempt_at, resends)
             SELECT key, login, email, text, created_at, 0, next_attempt_at, resends FROM json_to_recordset($1::json) AS requested
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
    let rows: Vec<Row> = requests.iter().map(|request| Row::new(request, now)).collect();
    sqlx::query_as(sql).bind(json(&rows)?).fetch_all(&database.pool).await
}

/// Records that the mail server accepted these messages. Returns the messages for which this was
/// not recorded before.
pub(crate) async fn mark_sent(database: &Database, ids: &[i64]) -> Result<Vec<Message>, sqlx::Error> {
    let sql = match database.kind {
        // The IDs are passed as an array: PostgreSQL would plan a join as a sequential scan while
        // the table is small, and would keep that plan.
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
