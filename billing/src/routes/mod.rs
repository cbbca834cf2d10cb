//! Billing's HTTP API: the router, the OpenAPI document and the authentication of callers.

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

/// The state that the handlers share.
#[derive(Clone)]
pub struct Billing {
    /// The ledger.
    pub ledger: Ledger,
    /// The authenticator of callers.
    pub authenticator: Authenticator,
    /// The service accounts that may call the routes.
    pub callers: Arc<Callers>,
}

/// The service accounts that may make calls which change or reveal data.
#[derive(Debug)]
pub struct Callers {
    /// The operator's account. It may open accounts, and charge, close and refund.
    pub operator: String,
    /// The api-server's account. It may register and refill accounts.
    pub api_server: String,
    /// The audit's account. It may read the whole ledger.
    pub audit: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders-billing",
        description = "Accounts and a double-entry ledger. This API is for the order services only. Each call, except the one that shows a balance, needs a service-account token of audience `orders-billing`.\n\nAn amount of money is a JSON number with at most two decimals. An amount that a call moves is between 0.01 and 999999999999.99. Each call that changes data has an `Idempotency-Key`. A repeated call returns the first outcome, with the header `Idempotent-Replayed: true`. A call with the same key and another body fails with 422. Errors are `application/problem+json` (RFC 9457). After a 503, it is unknown whether the call had its effect: repeat the call with the same key.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "http://orders-billing", description = "In the namespace of a Helm release that is named orders")),
    tags(
        (name = "accounts", description = "Customers' accounts"),
        (name = "charges", description = "Charges to accounts for orders, and refunds of these charges"),
        (name = "ledger", description = "The rows of the ledger, for an audit")
    )
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<Billing> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::refill))
        .routes(routes!(accounts::show_account, accounts::open))
        .routes(routes!(charges::withdraw))
        .routes(routes!(charges::show_charge))
        .routes(routes!(charges::close))
        .routes(routes!(charges::refund))
        .routes(routes!(export::list_transactions))
        .routes(routes!(export::list_accounts))
        .routes(routes!(export::show_summary))
}

/// Returns the OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    problem_examples::add(&mut document);
    document
}

/// Returns the router of this API.
pub fn router(billing: Billing) -> Router {
    documented().split_for_parts().0.with_state(billing)
}

/// An extractor that accepts only the operator. It is the first parameter of a handler, so that the
/// service reads nothing else of an unauthorized request.
struct Operator;

/// An extractor that accepts only the api-server.
struct ApiServer;

/// An extractor that accepts only the operator and the audit.
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

fn parse_login(login: String) -> Result<Login, Problem> {
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}

fn require_positive(amount: Money) -> Result<Money, Problem> {
    amount.require_positive().map_err(|error| Problem::invalid("balance", format!("balance: {error}")))
}

/// Builds a response. The response to a repeated call has the header `Idempotent-Replayed: true`.
fn respond<T: Serialize>(body: T, repeated: bool) -> Response {
    let mut response = Json(body).into_response();
    if repeated {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
