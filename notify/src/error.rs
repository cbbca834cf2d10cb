//! Notify's errors, and the HTTP problems that report them.

use orders_service::{Problem, database};

/// An error of a call. After [`NotifyError::Database`], it is unknown whether the call had its
/// effect. After any other error, the call had no effect.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// An earlier request used the same key for another message.
    #[error("this Idempotency-Key was used for another message")]
    KeyReused,
    /// The database failed. It is unknown whether the message was stored.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<NotifyError> for Problem {
    fn from(error: NotifyError) -> Problem {
        match error {
            NotifyError::KeyReused => Problem::invalid("Idempotency-Key", error.to_string()),
            NotifyError::Database(error) if database::is_unavailable(&error) => {
                tracing::warn!(%error, "database unavailable");
                Problem::unavailable("the messages' database does not respond; repeat the call with the same Idempotency-Key")
            }
            NotifyError::Database(error) => Problem::internal(&error),
        }
    }
}
