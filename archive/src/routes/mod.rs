//! The archive's HTTP API: the router, the OpenAPI document and the authentication of callers.

mod export;
mod list;
mod orders;

use std::sync::Arc;

use axum::{Router, extract::FromRequestParts, http::request::Parts};
use orders_service::{Problem, auth::Authenticator, problem_examples};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{entry::InvalidResource, store::Store};

/// The largest request body, in bytes: a batch of orders of several KiB each.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// The state that the handlers share.
#[derive(Clone)]
pub struct Archive {
    /// The store of archived orders.
    pub store: Store,
    /// The authenticator of callers.
    pub authenticator: Authenticator,
    /// The service accounts that may call the routes.
    pub callers: Arc<Callers>,
}

/// The service accounts that may call the API.
#[derive(Debug)]
pub struct Callers {
    /// The operator's account. It may archive and read orders.
    pub operator: String,
    /// The api-server's account. It may read orders.
    pub api_server: String,
    /// The audit's account. It may read orders.
    pub audit: Option<String>,
}

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

/// An extractor that accepts only the operator. It is the first parameter of a handler, so that the
/// service reads nothing else of an unauthorized request.
struct Writer;

/// An extractor that accepts only the operator, the api-server and the audit.
struct Reader;

impl FromRequestParts<Archive> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, archive: &Archive) -> Result<Self, Problem> {
        archive.authenticator.require(&parts.headers, &[&archive.callers.operator]).await.map(|()| Writer)
    }
}

impl FromRequestParts<Archive> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, archive: &Archive) -> Result<Self, Problem> {
        let Callers { operator, api_server, audit } = &*archive.callers;
        let allowed = [operator, api_server, audit.as_deref().unwrap_or(operator)];
        archive.authenticator.require(&parts.headers, &allowed).await.map(|()| Reader)
    }
}

/// An Order resource as Kubernetes stored it, without its managed fields. `kubectl explain order`
/// documents its fields.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = Object)]
struct Resource(Box<RawValue>);

impl TryFrom<String> for Resource {
    type Error = Problem;

    fn try_from(json: String) -> Result<Self, Problem> {
        RawValue::from_string(json).map(Resource).map_err(|error| Problem::internal(&error))
    }
}

impl From<InvalidResource> for Problem {
    fn from(error: InvalidResource) -> Problem {
        let detail = error.to_string();
        Problem { field: error.field, ..Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }
}
