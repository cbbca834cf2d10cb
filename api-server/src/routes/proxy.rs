//! `/billing` and `/notify`: calls that are proxied to the services. No other calls are proxied:
//! the calls between services cannot be made through this API.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use orders_contracts::{
    IDEMPOTENCY_KEY,
    billing::{Account, Refill},
    notify::LogEntry,
};
use orders_crds::Login;
use orders_service::{Problem, http_client::Peer, problem::CONTENT_TYPE, token_file::TokenFile};
use reqwest::Method;

use super::AppState;

/// The time limit of a call to a service.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a response, in bytes. A thousand messages of the maximum length fit in.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// The headers that are passed from the client's request to the service, and back with the
/// response.
const REQUEST_HEADERS: [&str; 2] = ["content-type", IDEMPOTENCY_KEY];
const RESPONSE_HEADERS: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// A service whose calls are proxied.
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    peer: Peer,
}

struct Call<'a> {
    method: Method,
    path: String,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl Service {
    /// Creates a proxy for the service with this name at this URL. Each call carries the token, if
    /// there is one.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(name: &'static str, url: &str, token: Option<TokenFile>) -> Result<Self, reqwest::Error> {
        Ok(Service { name, peer: Peer::new(url, token, TIMEOUT, MAX_RESPONSE)? })
    }

    async fn forward(&self, call: Call<'_>) -> Result<Response, Problem> {
        let mut request = self.peer.request(call.method, &call.path).body(call.body);
        for name in REQUEST_HEADERS {
            for value in call.headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let (status, headers, body) = self.peer.exchange(request).await.map_err(|error| {
            tracing::warn!(service = self.name, %error, "the service does not respond");
            Problem::unavailable(format!(
                "the {} service does not respond; it is unknown whether the call had its effect. Repeat it with the same Idempotency-Key, or check the effect first",
                self.name
            ))
        })?;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // The service refuses this process, not the client.
            tracing::error!(service = self.name, %status, "the service refuses the token of the api-server");
            return Err(Problem::unavailable(format!("the {} service cannot be used now; see the log", self.name)));
        }
        let mut response = Response::builder().status(status);
        for name in RESPONSE_HEADERS {
            if let Some(value) = headers.get(&name) {
                response = response.header(name, value);
            }
        }
        response.body(Body::from(body)).map_err(|error| Problem::internal(&error))
    }
}

/// Open an account.
///
/// The new account has a balance of zero. If the login is already registered, the response is 409
/// and the balance is unchanged.
#[utoipa::path(
    post,
    path = "/billing/register",
    tag = "billing",
    params(("login" = String, Query, description = "Login of the account: 1 to 64 letters, digits, '.', '_', '@' or '-'")),
    responses(
        (status = 200, description = "Opened", body = Account),
        (status = 409, description = "Registered already", body = Problem, content_type = CONTENT_TYPE),
        (status = 422, description = "The login is invalid", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Billing does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
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
        (status = 503, description = "Billing does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
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

fn get(path: String) -> Call<'static> {
    static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Call { method: Method::GET, path, headers: &NO_HEADERS, body: Bytes::new() }
}

/// Parses the login in a path. A valid login needs no escaping in a path.
pub(super) fn read_login(login: Result<Path<String>, PathRejection>) -> Result<Login, Problem> {
    let Path(login) = login.map_err(|_| Problem::invalid("login", "login: is not UTF-8"))?;
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}
