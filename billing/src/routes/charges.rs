//! Charges: made, looked up, closed, given back.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use orders_crds::{Login, Money, money::json_number};
use orders_service::{IdempotencyKey, Json, Problem, problem::ServiceCallProblems};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Amount, Billing, Operator, answer, positive};
use crate::ledger::{Kind, Movement, Outcome, Recorded, Refund};

/// An amount to charge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {
    #[schema(value_type = String, example = "Aurore56")]
    login: Login,
    /// The amount to charge.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 100)]
    balance: Money,
}

/// What became of a charge. Refusals are answers, too, with status 200.
#[derive(Serialize, ToSchema)]
pub(super) struct Charge {
    #[schema(value_type = String)]
    login: Login,
    /// The balance right after the charge or at the refusal; null without an account.
    #[schema(value_type = Option<f64>)]
    balance: Option<Amount>,
    /// The charge's key.
    key: String,
    /// The amount that was to be charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
    outcome: ChargeOutcome,
    /// Whether this key was decided by an earlier call.
    repeated: bool,
}

/// What became of a charge: final for its key.
#[derive(Serialize, ToSchema)]
pub(super) enum ChargeOutcome {
    /// The money moved.
    Charged,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// It was closed before it could land.
    Closed,
}

impl ChargeOutcome {
    fn of(outcome: Outcome) -> Result<Self, Problem> {
        match outcome {
            Outcome::Done => Ok(ChargeOutcome::Charged),
            Outcome::InsufficientFunds => Ok(ChargeOutcome::InsufficientFunds),
            Outcome::AccountNotFound => Ok(ChargeOutcome::AccountNotFound),
            Outcome::Closed => Ok(ChargeOutcome::Closed),
            Outcome::BalanceLimit => Err(Problem::internal(&"a charge cannot raise a balance")),
        }
    }
}

fn charge(key: &str, withdrawal: Withdrawal, recorded: Recorded) -> Result<Response, Problem> {
    let charge = Charge {
        balance: recorded.balance.map(Amount),
        key: key.to_owned(),
        login: withdrawal.login,
        amount: withdrawal.balance,
        outcome: ChargeOutcome::of(recorded.outcome)?,
        repeated: recorded.repeated,
    };
    Ok(answer(charge, recorded.repeated))
}

/// Charge an account, once for the key.
///
/// A refusal is an outcome, too, and final for the key: see `outcome`. After any other answer than 200, or none,
/// the outcome is unknown: ask again with the same key.
#[utoipa::path(
    post,
    path = "/billing/withdraw",
    tag = "charges",
    params(("Idempotency-Key" = String, Header, description = "The charge's key: the order's UID")),
    request_body = Withdrawal,
    responses(
        (status = 200, description = "Charged, or refused for good", body = Charge),
        (status = 400, description = "No key, or malformed JSON", body = Problem, content_type = "application/problem+json"),
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
    let amount = positive(withdrawal.balance)?;
    #[cfg(debug_assertions)]
    if orders_service::seeded_bugs::is_on("no-unique-key") && billing.ledger.charge(key.as_str()).await?.is_some() {
        let key = orders_service::seeded_bugs::another(key.as_str());
        let movement = Movement { kind: Kind::Charge, key: &key, login: withdrawal.login.as_ref(), amount, charge_key: None };
        billing.ledger.record(&movement).await?;
    }
    let movement = Movement { kind: Kind::Charge, key: key.as_str(), login: withdrawal.login.as_ref(), amount, charge_key: None };
    let recorded = billing.ledger.record(&movement).await?;
    charge(key.as_str(), withdrawal, recorded)
}

/// A charge as it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct ChargeState {
    login: String,
    /// The balance right after the charge or at the refusal; null without an account.
    #[schema(value_type = Option<f64>)]
    balance: Option<Amount>,
    /// The charge's key.
    key: String,
    /// The amount that was to be charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
    outcome: ChargeOutcome,
    /// How much of it was given back.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    refunded: Money,
}

/// Show what became of a charge.
///
/// The outcome is final; `refunded` grows with each refund.
#[utoipa::path(
    get,
    path = "/billing/charges/{key}",
    tag = "charges",
    params(("key" = String, Path, description = "The charge's key")),
    responses(
        (status = 200, description = "Charged, refused or closed", body = ChargeState),
        (status = 404, description = "Unknown to billing: it may still come", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn state(
    _: Operator,
    State(billing): State<Billing>,
    Path(key): Path<String>,
) -> Result<Json<ChargeState>, Problem> {
    let found = billing.ledger.charge(&key).await?;
    let charge = found.ok_or_else(|| Problem::not_found("no charge with this key is known; it may still come"))?;
    Ok(Json(ChargeState {
        login: charge.login,
        balance: charge.balance.map(Amount),
        key,
        amount: charge.amount,
        outcome: ChargeOutcome::of(charge.outcome)?,
        refunded: charge.refunded,
    }))
}

/// Close a charge, so that it cannot land any more.
///
/// A charge that was decided already stays as it was; the answer tells.
#[utoipa::path(
    post,
    path = "/billing/charges/{key}/close",
    tag = "charges",
    params(("key" = String, Path, description = "The charge's key; it makes a repeat harmless")),
    request_body = Withdrawal,
    responses(
        (status = 200, description = "Closed, or decided before", body = Charge),
        (status = 422, description = "A field is invalid, or the key is another charge's", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn close(
    _: Operator,
    State(billing): State<Billing>,
    Path(key): Path<String>,
    Json(withdrawal): Json<Withdrawal>,
) -> Result<Response, Problem> {
    let amount = positive(withdrawal.balance)?;
    let key =
        IdempotencyKey::parse(&key).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the key in the path is not one"))?;
    let recorded = billing.ledger.close(key.as_str(), withdrawal.login.as_ref(), amount).await?;
    charge(key.as_str(), withdrawal, recorded)
}

/// A charge to give back, in part or whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefundRequest {
    /// The charge's key.
    charge: String,
    #[schema(value_type = String, example = "Aurore56")]
    login: Login,
    /// The amount to give back; with earlier refunds at most the charge.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 100)]
    balance: Money,
}

/// A refund that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct RefundAnswer {
    #[schema(value_type = String)]
    login: Login,
    /// The balance right after the refund.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    balance: Money,
    /// The refund's key.
    key: String,
    /// The charge's key.
    charge: String,
    /// The amount given back.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
    /// Whether this key was decided by an earlier call.
    repeated: bool,
}

/// Give back a charge, once for the key.
///
/// In part or whole; all refunds of a charge together are at most the charge.
#[utoipa::path(
    post,
    path = "/billing/refund",
    tag = "charges",
    params(("Idempotency-Key" = String, Header, description = "The refund's key")),
    request_body = RefundRequest,
    responses(
        (status = 200, description = "Given back", body = RefundAnswer),
        (status = 400, description = "No key, or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This login has no such charge", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The charge was refused or closed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, more than the charge would be given back, or the key was used for another refund", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn refund(
    _: Operator,
    State(billing): State<Billing>,
    key: IdempotencyKey,
    Json(request): Json<RefundRequest>,
) -> Result<Response, Problem> {
    let amount = positive(request.balance)?;
    let refund = Refund { key: key.as_str(), charge_key: &request.charge, login: request.login.as_ref(), amount };
    let recorded = billing.ledger.refund(&refund).await?;
    let body = RefundAnswer {
        balance: recorded.balance.unwrap_or_default(),
        key: key.as_str().to_owned(),
        charge: request.charge,
        login: request.login,
        amount,
        repeated: recorded.repeated,
    };
    Ok(answer(body, recorded.repeated))
}
