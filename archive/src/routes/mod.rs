//! The archive's HTTP API: the router and the OpenAPI document.

mod export;
mod list;
mod orders;
mod resource;
mod state;

use axum::Router;
use orders_service::problem_examples;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use state::{Archive, Callers};

/// The largest request body, in bytes: a batch of orders of several KiB each.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders-archive",
        description = "The archive stores finished orders permanently, so that their resources can be removed from Kubernetes. This API is for the order services only. Each call needs a service-account token of audience `orders-archive`.\n\nThe archive stores the latest revision of each order. The UID identifies the order, and `metadata.resourceVersion`, compared as a number, is its revision. A repeated call changes nothing. The `status.history` of an archived order contains the entries of all revisions that arrived. The status of a live order has only the first entry and the latest fifteen entries. An archived order has at most 500 entries and 64 KiB. Beyond that, the oldest entries after the first are dropped. An older revision that arrives late adds its history entries, and nothing else. Times are microseconds since 1970-01-01 UTC. Errors are `application/problem+json` (RFC 9457). After a 503, repeat the call.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "http://orders-archive", description = "In the namespace of a Helm release that is named orders")),
    tags((name = "orders", description = "Finished orders"), (name = "export", description = "The rows of the archive, for an audit"))
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<Archive> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(list::list, orders::put_all))
        .routes(routes!(orders::put, orders::show))
        .routes(routes!(orders::show_named))
        .routes(routes!(export::export))
}

/// Returns the OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    problem_examples::add(&mut document);
    document
}

/// Returns the router of this API.
pub fn router(archive: Archive) -> Router {
    documented().split_for_parts().0.with_state(archive)
}
