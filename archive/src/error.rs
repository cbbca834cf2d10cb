//! What can go wrong in the archive, and how HTTP says it.

use orders_service::{Problem, database};

/// A call that had no effect, or whose effect is not known.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The database failed. Whether the call had its effect is unknown.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Problem {
        match error {
            ArchiveError::Database(error) if database::is_unavailable(&error) => {
                tracing::warn!(%error, "database unavailable");
                Problem::unavailable(
                    "the archive's database does not answer now; repeat the call, which has its effect only once",
                )
            }
            ArchiveError::Database(error) => Problem::internal(&error),
        }
    }
}
