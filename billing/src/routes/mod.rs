//! Billing's HTTP API: the router and the OpenAPI document.

mod accounts;
mod authorizations;
mod charges;
mod export;
mod state;
mod values;

use axum::Router;
use orders_service::problem_examples;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use state::{Billing, Callers};

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
        (name = "authorizations", description = "Charges that are to be captured or voided"),
        (name = "ledger", description = "Which ledger this is, and its rows for an audit")
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
        .routes(routes!(authorizations::list))
        .routes(routes!(authorizations::capture))
        .routes(routes!(authorizations::void))
        .routes(routes!(export::show_ledger))
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
