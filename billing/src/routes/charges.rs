//! Routes that make, show, close and refund charges.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use orders_contracts::{
    Amount,
    billing::{Charge, ChargeState, NewAuthorization, Refund, RefundRequest, Withdrawal},
};
use orders_service::{IdempotencyKey, Json, Problem, problem::ServiceCallProblems};

use super::{
    state::{Billing, ChargeReader, Operator},
    values::{require_positive, respond},
};
use crate::ledger::{self, Kind, Movement, Outcome, RecordedMovement};

/// Converts the ledger's outcome of a charge to the outcome that the API returns.
fn charge_outcome(outcome: Outcome) -> Result<orders_crds::Outcome, Problem> {
    outcome.to_charge_outcome().ok_or_else(|| Problem::internal(&"a charge cannot have the outcome balance_limit"))
}

fn respond_with_charge(key: &str, withdrawal: Withdrawal, recorded: RecordedMovement) -> Result<Response, Problem> {
    let charge = Charge {
        balance: recorded.balance.map(Amount),
        key: key.to_owned(),
        login: withdrawal.login,
        amount: withdrawal.balance,
        outcome: charge_outcome(recorded.outcome)?,
        repeated: recorded.repeated,
    };
    Ok(respond(charge, recorded.repeated))
}

/// Charge an account, once for each key.
///
/// With `authorization`, the charge is authorized: the balance decreases at once, and the charge is
/// to be captured or voided. Without it, the charge is captured at once. Of all charges with one
/// `authorization.reference`, only one is ever made; the others are refused with `AlreadyExists`.
///
/// A refusal is also an outcome, and it is final for the key: see `outcome`. After any other status
/// than 200, or without a response, the outcome is unknown: repeat the call with the same key.
#[utoipa::path(
    post,
    path = "/billing/withdraw",
    tag = "charges",
    params(("Idempotency-Key" = String, Header, description = "The charge's key: the order's UID")),
    request_body = Withdrawal,
    responses(
        (status = 200, description = "Charged or refused; the outcome is final", body = Charge),
        (status = 400, description = "The `Idempotency-Key` is missing, or the JSON is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "An earlier charge of the same reference is neither captured nor voided yet", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, or the key was used for another charge", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn withdraw(
    _: Operator,
    State(billing): State<Billing>,
    key: IdempotencyKey,
    Json(withdrawal): Json<Withdrawal>,
) -> Result<Response, Problem> {
    let amount = require_positive(withdrawal.balance)?;
    #[cfg(debug_assertions)]
    if orders_service::seeded_bugs::is_on("no-unique-key") && billing.ledger.find_charge(key.as_str()).await?.is_some() {
        let key = orders_service::seeded_bugs::unique_key(key.as_str());
        let login = withdrawal.login.as_ref();
        let movement = Movement { kind: Kind::Charge, key: &key, login, amount, charge_key: None, authorization: None };
        billing.ledger.record(&movement).await?;
    }
    let authorization = withdrawal.authorization.as_ref();
    let metadata = authorization.map(NewAuthorization::validate).transpose();
    let metadata = metadata.map_err(|problem| Problem::invalid("authorization", problem))?;
    let movement = Movement {
        kind: Kind::Charge,
        key: key.as_str(),
        login: withdrawal.login.as_ref(),
        amount,
        charge_key: None,
        authorization: ledger::NewAuthorization::new(authorization, metadata.as_deref()),
    };
    let recorded = billing.ledger.record(&movement).await?;
    respond_with_charge(key.as_str(), withdrawal, recorded)
}

/// Show the outcome of a charge.
///
/// The outcome is final; `phase` and `refunded` change.
#[utoipa::path(
    get,
    path = "/billing/charges/{key}",
    tag = "charges",
    params(("key" = String, Path, description = "The charge's key")),
    responses(
        (status = 200, description = "Charged, refused or closed", body = ChargeState),
        (status = 404, description = "Billing has no charge with this key; the charge may still be made", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn show_charge(
    _: ChargeReader,
    State(billing): State<Billing>,
    Path(key): Path<String>,
) -> Result<Json<ChargeState>, Problem> {
    let found = billing.ledger.find_charge(&key).await?;
    let charge = found.ok_or_else(|| Problem::not_found("there is no charge with this key; it may still be made"))?;
    Ok(Json(ChargeState {
        login: charge.login,
        balance: charge.balance.map(Amount),
        key,
        amount: charge.amount,
        outcome: charge_outcome(charge.outcome)?,
        phase: charge.phase,
        refunded: charge.refunded,
    }))
}

/// Close a charge, so that it can no longer be made.
///
/// A charge that already has an outcome stays unchanged, and the response contains that outcome.
#[utoipa::path(
    post,
    path = "/billing/charges/{key}/close",
    tag = "charges",
    params(("key" = String, Path, description = "The charge's key; a repeated call has no further effect")),
    request_body = Withdrawal,
    responses(
        (status = 200, description = "Closed, or the charge already had an outcome", body = Charge),
        (status = 422, description = "A field is invalid, or the key belongs to another charge", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn close(
    _: Operator,
    State(billing): State<Billing>,
    Path(key): Path<String>,
    Json(withdrawal): Json<Withdrawal>,
) -> Result<Response, Problem> {
    let amount = require_positive(withdrawal.balance)?;
    let key = IdempotencyKey::parse(&key)
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the key in the path is not a valid idempotency key"))?;
    let recorded = billing.ledger.close(key.as_str(), withdrawal.login.as_ref(), amount).await?;
    respond_with_charge(key.as_str(), withdrawal, recorded)
}

/// Refund a charge, once for each key.
///
/// A refund returns a part or all of the charge. An authorized charge is captured by its refund. The sum of the refunds of a charge is at most its
/// amount.
#[utoipa::path(
    post,
    path = "/billing/refund",
    tag = "charges",
    params(("Idempotency-Key" = String, Header, description = "The refund's key")),
    request_body = RefundRequest,
    responses(
        (status = 200, description = "Refunded", body = Refund),
        (status = 400, description = "The `Idempotency-Key` is missing, or the JSON is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The login has no charge with this key", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The charge was refused or closed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, the refunds would exceed the charge, or the key was used for another refund", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn refund(
    _: Operator,
    State(billing): State<Billing>,
    key: IdempotencyKey,
    Json(request): Json<RefundRequest>,
) -> Result<Response, Problem> {
    let amount = require_positive(request.balance)?;
    let refund = ledger::Refund { key: key.as_str(), charge_key: &request.charge, login: request.login.as_ref(), amount };
    let recorded = billing.ledger.refund(&refund).await?;
    let body = Refund {
        balance: recorded.balance.unwrap_or_default(),
        key: key.as_str().to_owned(),
        charge: request.charge,
        login: request.login,
        amount,
        repeated: recorded.repeated,
    };
    Ok(respond(body, recorded.repeated))
}
