//! `/billing` and `/notify`: passed on to their services. Only these calls are;
//! what the services take from each other has no way in here.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use orders_crds::Login;
use orders_service::{
    Problem,
    http_client::{self, CallError},
    idempotency,
    problem::CONTENT_TYPE,
    token_file::TokenFile,
};
use reqwest::{Client, Method};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::FrontDoor;

/// How long a service may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Larger than any right answer, in bytes: a thousand messages of the longest kind.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What a client's request and a service's answer may carry besides their bodies.
const REQUEST_HEADERS: [&str; 2] = ["content-type", idempotency::HEADER];
const ANSWER_HEADERS: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// A service behind the front door.
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    client: Client,
    url: String,
    token: Option<TokenFile>,
}

struct Call<'a> {
    method: Method,
    path: String,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl Service {
    /// The service of this name at this URL; calls that change something show the token.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(name: &'static str, url: &str, token: Option<TokenFile>) -> Result<Self, reqwest::Error> {
        Ok(Service { name, client: http_client::client(TIMEOUT)?, url: url.trim_end_matches('/').to_owned(), token })
    }

    async fn pass_on(&self, call: Call<'_>) -> Result<Response, Problem> {
        self.send(call).await.map_err(|error| {
            tracing::warn!(service = self.name, %error, "no answer");
            Problem::unavailable(format!(
                "the {} service does not answer now; whether the call had its effect is not known. Repeat it with the same Idempotency-Key, or look first",
                self.name
            ))
        })
    }

    async fn send(&self, call: Call<'_>) -> Result<Response, CallError> {
        let mut request = self.client.request(call.method.clone(), format!("{}{}", self.url, call.path)).body(call.body);
        for name in REQUEST_HEADERS {
            for value in call.headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        if let (Some(token), true) = (&self.token, call.method != Method::GET) {
            request = request.header(header::AUTHORIZATION, token.bearer().await?);
        }
        let response = request.send().await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // It is this process that was not let in, not the client.
            tracing::error!(service = self.name, status = %response.status(), "the service refuses this one's token");
            return Ok(Problem::unavailable(format!("the {} service cannot be used now; see the log", self.name)).into_response());
        }
        let mut answer = Response::builder().status(response.status());
        for name in ANSWER_HEADERS {
            if let Some(value) = response.headers().get(&name) {
                answer = answer.header(name, value);
            }
        }
        let body = http_client::body(response, MAX_ANSWER).await?;
        Ok(answer.body(Body::from(body)).unwrap_or_else(|error| Problem::internal(&error).into_response()))
    }
}

/// An account.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes billing's answer")]
pub(super) struct Account {
    #[schema(example = "Aurore56")]
    login: String,
    /// The balance, with at least one decimal.
    #[schema(example = 900.0)]
    balance: f64,
}

/// An amount to add to a balance.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes billing's request")]
pub(super) struct RefillRequest {
    #[schema(example = "Aurore56")]
    login: String,
    /// The amount to add: greater than zero, at most two decimals.
    #[schema(example = 900)]
    balance: f64,
}

/// A message to a customer.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes notify's answer")]
pub(super) struct Message {
    #[schema(example = 22)]
    id: i64,
    #[schema(example = "Aurore56")]
    login: String,
    #[schema(example = "Gage_Lind@gmail.com")]
    email: String,
    /// When it was stored: UTC without a zone, microseconds.
    #[schema(example = "2025-01-27T06:01:27.018191")]
    dtime: String,
    #[schema(example = "Заказ успешно оформлен")]
    text: String,
    /// Whether the mail server accepted it.
    is_sended: bool,
}

/// Open an account.
///
/// Its balance is zero. A login that is registered already is answered 409; its balance is unchanged.
#[utoipa::path(
    post,
    path = "/billing/register",
    tag = "billing",
    params(("login" = String, Query, description = "Login of the account: 1 to 64 letters, digits, '.', '_', '@' or '-'")),
    responses(
        (status = 200, description = "Opened", body = Account),
        (status = 409, description = "Registered already", body = Problem, content_type = CONTENT_TYPE),
        (status = 422, description = "The login is invalid", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Billing does not answer; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn register(
    State(front_door): State<FrontDoor>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = format!("/billing/register?{}", query.unwrap_or_default());
    front_door.billing.pass_on(Call { method: Method::POST, path, headers: &headers, body: Bytes::new() }).await
}

/// Add to a balance.
///
/// With an `Idempotency-Key`, a refill sent twice adds once; without, one whose answer was lost cannot be repeated safely.
/// A refusal is recorded under its key as well: after a 404, register the login and refill with a new key.
#[utoipa::path(
    post,
    path = "/billing/refill",
    tag = "billing",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat of this request have its first effect only")),
    request_body = RefillRequest,
    responses(
        (status = 200, description = "The new balance", body = Account),
        (status = 404, description = "No such account", body = Problem, content_type = CONTENT_TYPE),
        (status = 422, description = "A field is invalid, or the Idempotency-Key was used for another request", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Billing does not answer; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn refill(
    State(front_door): State<FrontDoor>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let path = "/billing/refill".to_owned();
    front_door.billing.pass_on(Call { method: Method::POST, path, headers: &headers, body }).await
}

/// Show a balance.
///
/// Once an order is answered, its charge is in it.
#[utoipa::path(
    get,
    path = "/billing/account/{login}",
    tag = "billing",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 404, description = "No such account", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "Billing does not answer; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn account(
    State(front_door): State<FrontDoor>,
    login: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let path = format!("/billing/account/{}", read_login(login)?);
    front_door.billing.pass_on(get(path)).await
}

/// Show a customer's messages.
///
/// The latest 1000, oldest first.
#[utoipa::path(
    get,
    path = "/notify/log/{login}",
    tag = "notify",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The messages", body = Vec<Message>),
        (status = 503, description = "Notify does not answer; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn log(
    State(front_door): State<FrontDoor>,
    login: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let path = format!("/notify/log/{}", read_login(login)?);
    front_door.notify.pass_on(get(path)).await
}

fn get(path: String) -> Call<'static> {
    static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Call { method: Method::GET, path, headers: &NO_HEADERS, body: Bytes::new() }
}

/// A login is safe in a path as it is.
pub(super) fn read_login(login: Result<Path<String>, PathRejection>) -> Result<Login, Problem> {
    let Path(login) = login.map_err(|_| Problem::invalid("login", "login: is not UTF-8"))?;
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}
