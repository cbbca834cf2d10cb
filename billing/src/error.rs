//! What can go wrong in the ledger, and how HTTP says it.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use orders_service::{Problem, database};

/// A ledger call that had no effect. Refusals of a charge are not among these:
/// they are outcomes.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no account with this login.
    #[error("there is no account with this login; register it first")]
    AccountNotFound,
    /// The login is taken.
    #[error("this login is registered already; its balance is unchanged")]
    AlreadyRegistered,
    /// The balance would pass the largest amount that is kept exactly everywhere.
    #[error("the balance would be larger than 999999999999.99")]
    BalanceLimit,
    /// The same key came with another login, amount or kind of movement.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// There is nothing under the key of the charge.
    #[error("there is no charge with this key")]
    ChargeNotFound,
    /// The charge was refused or closed, so there is nothing to give back.
    #[error("this charge took no money: there is nothing to refund")]
    NotCharged,
    /// More would be given back than was taken.
    #[error("the refunds of this charge would be larger than the charge")]
    RefundTooLarge,
    /// The database failed. Whether the call had its effect is unknown.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Problem {
        let detail = error.to_string();
        match error {
            LedgerError::AccountNotFound => Problem { field: Some("login".to_owned()), ..Problem::not_found(detail) },
            LedgerError::AlreadyRegistered => {
                Problem { field: Some("login".to_owned()), ..Problem::new(StatusCode::CONFLICT, detail) }
            }
            LedgerError::BalanceLimit => Problem::invalid("balance", detail),
            LedgerError::ChargeNotFound => Problem { field: Some("charge".to_owned()), ..Problem::not_found(detail) },
            LedgerError::NotCharged => Problem { field: Some("charge".to_owned()), ..Problem::new(StatusCode::CONFLICT, detail) },
            LedgerError::RefundTooLarge => Problem::invalid("balance", detail),
            LedgerError::KeyReused => Problem::invalid("Idempotency-Key", detail),
            LedgerError::Database(error) if database::is_unavailable(&error) => {
                tracing::warn!(%error, "database unavailable");
                Problem::unavailable(
                    "the ledger's database does not answer now; whether the call had its effect is not known. Repeat it with the same Idempotency-Key, or look at the balance first",
                )
            }
            LedgerError::Database(error) => Problem::internal(&error),
        }
    }
}

impl IntoResponse for LedgerError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
