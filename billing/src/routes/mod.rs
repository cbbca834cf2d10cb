//! The HTTP API of billing.

mod accounts;
mod charges;
mod export;

use std::sync::Arc;

use axum::{
    Router,
    extract::FromRequestParts,
    http::{HeaderValue, request::Parts},
    response::{IntoResponse, Response},
};
use orders_crds::{Login, Money};
use orders_service::{Json, Problem, auth::Authenticator, problem_examples};
use serde::Serialize;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::ledger::Ledger;

/// What the routes work with.
#[derive(Clone)]
pub struct Billing {
    /// The money's record.
    pub ledger: Ledger,
    /// Who calls.
    pub authenticator: Authenticator,
    /// Who may call what.
    pub callers: Arc<Callers>,
}

/// The accounts that may make calls which change or reveal something.
#[derive(Debug)]
pub struct Callers {
    /// May open accounts, charge, close and refund.
    pub operator: String,
    /// May register and refill.
    pub api_server: String,
    /// May read the whole ledger.
    pub audit: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders-billing",
        description = "Accounts and a double-entry ledger. For the order services only: calls that change or reveal something need a service-account token of audience `orders-billing`.\n\nMoney is a JSON number with at most two decimals; between 0.01 and 999999999999.99 where it is to move. Each call that changes something has an `Idempotency-Key`: a repeat gets the first outcome, with the header `Idempotent-Replayed: true`; the same key with another body is 422. Errors are `application/problem+json` (RFC 9457); a 503 says that it is not known whether the call had its effect: repeat it with the same key.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "http://orders-billing", description = "In the namespace of a release that is named orders")),
    tags(
        (name = "accounts", description = "Customers' accounts"),
        (name = "charges", description = "What orders take from accounts, and what is given back"),
        (name = "ledger", description = "The rows as they are, for an audit")
    )
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<Billing> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::refill))
        .routes(routes!(accounts::account, accounts::open))
        .routes(routes!(charges::withdraw))
        .routes(routes!(charges::state))
        .routes(routes!(charges::close))
        .routes(routes!(charges::refund))
        .routes(routes!(export::transactions))
        .routes(routes!(export::accounts))
        .routes(routes!(export::summary))
}

/// The OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    problem_examples::add(&mut document);
    document
}

/// The routes.
pub fn router(billing: Billing) -> Router {
    documented().split_for_parts().0.with_state(billing)
}

/// The operator calls. As the first of a handler's parameters it has nothing
/// of a stranger's request looked at.
struct Operator;

/// The api-server calls.
struct ApiServer;

/// The operator or an audit calls.
struct Auditor;

impl FromRequestParts<Billing> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        billing.authenticator.require(&parts.headers, &[&billing.callers.operator]).await.map(|()| Operator)
    }
}

impl FromRequestParts<Billing> for ApiServer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        billing.authenticator.require(&parts.headers, &[&billing.callers.api_server]).await.map(|()| ApiServer)
    }
}

impl FromRequestParts<Billing> for Auditor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        let Callers { operator, audit, .. } = &*billing.callers;
        billing.authenticator.require(&parts.headers, &[operator, audit.as_deref().unwrap_or(operator)]).await.map(|()| Auditor)
    }
}

fn read_login(login: String) -> Result<Login, Problem> {
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}

fn positive(amount: Money) -> Result<Money, Problem> {
    amount.require_positive().map_err(|error| Problem::invalid("balance", format!("balance: {error}")))
}

/// An answer, marked if it is the one that an earlier call got.
fn answer<T: Serialize>(body: T, repeated: bool) -> Response {
    let mut response = Json(body).into_response();
    if repeated {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
