//! Routes that list authorized charges, capture them and void them.

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use jiff::{Timestamp, ToSpan};
use orders_contracts::billing::{Authorization, CaptureRequest, CapturedCount, MAX_CAPTURES, Void};
use orders_service::{Json, Problem, problem::ServiceCallProblems};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    state::{Auditor, Billing, Operator},
    values::respond,
};

/// The maximum number of authorizations on a page.
const PAGE_SIZE: i64 = 500;

/// The start of a page of authorizations, and their least age.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuthorizationParams {
    /// The last `id` of the previous page; 0 for the first page.
    #[serde(default)]
    after: i64,
    /// Only charges that were made at least this many seconds ago, by billing's clock.
    #[serde(default)]
    min_age_seconds: u32,
}

/// List authorized charges.
///
/// The list contains the charges that are neither captured nor voided, 500 per page, in the order in
/// which they were made. Only the service accounts of the operator and the audit may call this.
#[utoipa::path(
    get,
    path = "/billing/authorizations",
    tag = "authorizations",
    params(AuthorizationParams),
    responses(
        (status = 200, description = "A page of authorized charges; the last page is empty", body = Vec<Authorization>),
        ServiceCallProblems
    )
)]
pub(super) async fn list(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AuthorizationParams { after, min_age_seconds }): Query<AuthorizationParams>,
) -> Result<Json<Vec<Authorization>>, Problem> {
    let before = Timestamp::now() - i64::from(min_age_seconds).seconds();
    Ok(Json(billing.ledger.authorizations(after, before, PAGE_SIZE).await?))
}

/// Capture charges.
///
/// A captured charge is final: it can be refunded, but not voided. A charge that was captured, voided
/// or refused before stays unchanged. After an error, repeat the call.
#[utoipa::path(
    post,
    path = "/billing/charges/capture",
    tag = "authorizations",
    request_body = CaptureRequest,
    responses(
        (status = 200, description = "No charge with one of these keys is authorized any more", body = CapturedCount),
        (status = 422, description = "There are too many keys", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn capture(
    _: Operator,
    State(billing): State<Billing>,
    Json(request): Json<CaptureRequest>,
) -> Result<Json<CapturedCount>, Problem> {
    if request.keys.len() > MAX_CAPTURES {
        return Err(Problem::invalid("keys", format!("keys: at most {MAX_CAPTURES}")));
    }
    let keys: Vec<&str> = request.keys.iter().map(String::as_str).collect();
    Ok(Json(CapturedCount { captured: billing.ledger.capture(&keys).await? }))
}

/// Void a charge.
///
/// The customer gets the whole amount back, once. A captured charge cannot be voided; it can be
/// refunded.
#[utoipa::path(
    post,
    path = "/billing/charges/{key}/void",
    tag = "authorizations",
    params(("key" = String, Path, description = "The charge's key; a repeated call has no further effect")),
    responses(
        (status = 200, description = "Voided, now or before", body = Void),
        (status = 404, description = "There is no charge with this key", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The charge was captured, refused or closed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The balance would be larger than 999999999999.99", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn void(_: Operator, State(billing): State<Billing>, Path(key): Path<String>) -> Result<Response, Problem> {
    let voided = billing.ledger.void(&key).await?;
    let (login, balance, amount) = (voided.login, voided.balance, voided.amount);
    Ok(respond(Void { login, balance, key, amount, repeated: voided.repeated }, voided.repeated))
}
