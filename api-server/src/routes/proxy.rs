//! `/billing` and `/notify`: calls that are proxied to the services. No other calls are proxied:
//! the calls between services cannot be made through this API.

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use orders_contracts::{
    billing::{Account, Refill},
    notify::LogEntry,
};
use orders_crds::Login;
use orders_service::{Problem, problem::CONTENT_TYPE};
use reqwest::Method;

use super::state::AppState;
use crate::proxy::Call;

/// Open an account.
///
/// The new account has a balance of zero. If the login is already registered, the response is 409
/// and the balance is unchanged.
#[utoipa::path(
    post,
    path = "/billing/register",
    tag = "billing",
    params(("login" = String, Query, description = "Login of the account: 1 to 64 letters, digits, '.', '_', '@', '+' or '-'; in the query, '+' is written %2B")),
    responses(
        (status = 200, description = "Opened", body = Account),
        (status = 409, description = "Registered already", body = Problem, content_type = CONTENT_TYPE),
        (status = 422, description = "The login is invalid", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Nothing was done: billing does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE),
        (status = 504, description = "It is unknown whether the call had its effect", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn register(
    State(app): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = format!("/billing/register?{}", query.unwrap_or_default());
    app.billing.forward(Call { method: Method::POST, path, headers: &headers, body: Bytes::new() }).await
}

/// Add to a balance.
///
/// With an `Idempotency-Key`, a repeated refill adds its amount once. Without a key, a refill whose
/// response was lost cannot be repeated safely. A refusal is also recorded under its key: after a
/// 404, register the login and refill with a new key.
#[utoipa::path(
    post,
    path = "/billing/refill",
    tag = "billing",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key has no second effect")),
    request_body = Refill,
    responses(
        (status = 200, description = "The new balance", body = Account),
        (status = 404, description = "No such account", body = Problem, content_type = CONTENT_TYPE),
        (status = 422, description = "A field is invalid, or the Idempotency-Key was used for another request", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Nothing was done: billing does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE),
        (status = 504, description = "It is unknown whether the call had its effect", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn refill(
    State(app): State<AppState>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let path = "/billing/refill".to_owned();
    app.billing.forward(Call { method: Method::POST, path, headers: &headers, body }).await
}

/// Show a balance.
///
/// Once the outcome of an order is known, the balance includes its charge.
#[utoipa::path(
    get,
    path = "/billing/account/{login}",
    tag = "billing",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 404, description = "No such account", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Billing does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn account(
    State(app): State<AppState>,
    login: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let path = format!("/billing/account/{}", read_login(login)?);
    app.billing.forward(get(path)).await
}

/// Show a customer's messages.
///
/// Shows the latest 1000 messages, oldest first.
#[utoipa::path(
    get,
    path = "/notify/log/{login}",
    tag = "notify",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The messages", body = Vec<LogEntry>),
        (status = 503, description = "Notify does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn log(State(app): State<AppState>, login: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let path = format!("/notify/log/{}", read_login(login)?);
    app.notify.forward(get(path)).await
}

/// A call without a body and headers.
pub(super) fn get(path: String) -> Call<'static> {
    static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Call { method: Method::GET, path, headers: &NO_HEADERS, body: Bytes::new() }
}

/// Parses the login in a path. A valid login needs no escaping in a path.
pub(super) fn read_login(login: Result<Path<String>, PathRejection>) -> Result<Login, Problem> {
    let Path(login) = login.map_err(|_| Problem::invalid("login", "login: is not UTF-8"))?;
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}
