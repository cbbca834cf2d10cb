//! The ledger's errors, and the HTTP problems that report them.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use orders_service::{Problem, database};

/// An error of a ledger call. After [`LedgerError::Database`], it is unknown whether the call had
/// its effect. After any other error, the call had no effect. The refusal of a charge is not an
/// error but an outcome.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no account with this login.
    #[error("there is no account with this login; register it first")]
    AccountNotFound,
    /// An account with this login already exists.
    #[error("this login is already registered; its balance is unchanged")]
    AlreadyRegistered,
    /// A refill would raise the balance above the largest amount. A refund may, up to the largest number
    /// that every component stores exactly.
    #[error("the balance would be larger than 999999999999.99")]
    BalanceLimit,
    /// An earlier request used the same key with another login, amount or charge.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// Another charge of the same reference is authorized. It decides the reference only when it is
    /// captured or voided, because its order is recorded before.
    #[error("an earlier charge of this reference is neither captured nor voided yet; repeat the call later")]
    ReferenceInUse,
    /// The charge was captured, refused or closed, so it cannot be voided.
    #[error("this charge is not authorized: it was captured, refused or closed")]
    NotAuthorized,
    /// The login has no charge with this key.
    #[error("there is no charge with this key")]
    ChargeNotFound,
    /// The charge was refused or closed, so there is nothing to refund.
    #[error("this charge was refused or closed: there is nothing to refund")]
    NotCharged,
    /// The refunds of the charge would exceed its amount.
    #[error("the refunds of this charge would be larger than the charge")]
    RefundTooLarge,
    /// The database failed. It is unknown whether the call had its effect.
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
            LedgerError::ReferenceInUse => {
                Problem { field: Some("authorization.reference".to_owned()), ..Problem::new(StatusCode::CONFLICT, detail) }
            }
            LedgerError::NotAuthorized => {
                Problem { field: Some("charge".to_owned()), ..Problem::new(StatusCode::CONFLICT, detail) }
            }
            LedgerError::NotCharged => Problem { field: Some("charge".to_owned()), ..Problem::new(StatusCode::CONFLICT, detail) },
            LedgerError::RefundTooLarge => Problem::invalid("balance", detail),
            LedgerError::KeyReused => Problem::invalid("Idempotency-Key", detail),
            LedgerError::Database(error) if database::is_unavailable(&error) => {
                tracing::warn!(%error, "database unavailable");
                if database::had_no_effect(&error) {
                    return Problem::unavailable("the ledger's database does not respond; nothing was done. Try again later");
                }
                Problem::unknown(
                    "the ledger's database does not respond; it is unknown whether the call had its effect. Repeat the call with the same Idempotency-Key, or check the balance first",
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
