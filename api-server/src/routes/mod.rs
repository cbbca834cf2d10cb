//! The routes of the public HTTP API, and their OpenAPI document.

mod changes;
mod charge;
mod events;
mod health;
mod orders;
mod proxy;
mod state;
mod users;

use axum::{
    Router,
    routing::{get, post},
};
use orders_service::problem_examples;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

pub use events::MAX_STREAMS;
pub use state::AppState;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders",
        description = "Places orders and shows their outcomes. Each order is charged once to a billing account.\n\nMoney is a JSON number with at most two decimals, in the account's currency. Errors are `application/problem+json` (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "/", description = "The host that serves this document")),
    tags(
        (name = "orders", description = "Place orders and find them"),
        (name = "users", description = "Customers, each with a billing account"),
        (name = "billing", description = "Accounts that orders are charged to"),
        (name = "notify", description = "Messages to customers")
    )
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<AppState> {
    let mut router = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(orders::create))
        .routes(routes!(orders::list))
        .routes(routes!(orders::show))
        .routes(routes!(charge::show))
        .routes(routes!(changes::cancel))
        .routes(routes!(changes::retry))
        .routes(routes!(changes::resend))
        .routes(routes!(events::events))
        .routes(routes!(users::create))
        .routes(routes!(users::show))
        .routes(routes!(proxy::register))
        .routes(routes!(proxy::refill))
        .routes(routes!(proxy::account))
        .routes(routes!(proxy::log));
    problem_examples::add(router.get_openapi_mut());
    router
}

/// The OpenAPI document of this API, as it is served at `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// The routes, with their documentation at `/openapi.json` and `/docs`.
pub fn router(app: AppState) -> Router {
    let (router, openapi) = documented().split_for_parts();
    // No badge of an external validator: the validator would receive the address of this
    // installation.
    let page = utoipa_swagger_ui::Config::default().validator_url("none");
    router
        // Each path with and without the trailing slash.
        .route("/orders", post(orders::create))
        .route("/orders/", get(orders::list))
        .route("/users/", post(users::create))
        .route("/", get(health::start_page))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready).with_state(app.ready.clone()))
        .with_state(app)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi).config(page))
}
