//! The archive's errors, and the HTTP problems that report them.

use orders_service::{Problem, database};

/// An error of a call. The call had no effect, or it is unknown whether it had its effect.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The database failed. It is unknown whether the call had its effect.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Problem {
        match error {
            ArchiveError::Database(error) if database::is_unavailable(&error) => {
                tracing::warn!(%error, "database unavailable");
                Problem::unavailable("the archive's database does not respond; repeat the call, which is idempotent")
            }
            ArchiveError::Database(error) => Problem::internal(&error),
        }
    }
}
