//! What can go wrong with a message, and how HTTP says it.

use orders_service::{Problem, database};

/// A call that had no effect.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The same key came with another message.
    #[error("this Idempotency-Key was used for another message")]
    KeyReused,
    /// The database failed. Whether the message was stored is unknown.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<NotifyError> for Problem {
    fn from(error: NotifyError) -> Problem {
        match error {
            NotifyError::KeyReused => Problem::invalid("Idempotency-Key", error.to_string()),
            NotifyError::Database(error) if database::is_unavailable(&error) => {
                tracing::warn!(%error, "database unavailable");
                Problem::unavailable("the messages' database does not answer now; try again with the same key")
            }
            NotifyError::Database(error) => Problem::internal(&error),
        }
    }
}
