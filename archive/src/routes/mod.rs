//! The HTTP API of the archive.

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

use crate::{entry::Refused, store::Store};

/// The largest request body, in bytes: a batch of orders of several KiB each.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// What the routes work with.
#[derive(Clone)]
pub struct Archive {
    /// The orders.
    pub store: Store,
    /// Who calls.
    pub authenticator: Authenticator,
    /// Who may call what.
    pub callers: Arc<Callers>,
}

/// The accounts that may call.
#[derive(Debug)]
pub struct Callers {
    /// May put orders into the archive, and read them.
    pub operator: String,
    /// May read them.
    pub api_server: String,
    /// May read them.
    pub audit: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders-archive",
        description = "Finished orders, kept for good, so that their resources can be removed from Kubernetes. For the order services only: each call needs a service-account token of audience `orders-archive`.\n\nOf each order, by its UID, the latest revision is kept (`metadata.resourceVersion`, compared as a number): a repeat changes nothing. Its `status.history` is that of all revisions that came: a status has the first entry and the latest fifteen only, the archive up to 500, as far as the order is no larger than 64 KiB with them; of more, the oldest after the first make room. An older revision that comes late adds what it still has of the history, and nothing else. Times are microseconds since 1970-01-01 UTC. Errors are `application/problem+json` (RFC 9457); after a 503 repeat the call.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "http://orders-archive", description = "In the namespace of a release that is named orders")),
    tags((name = "orders", description = "Finished orders"), (name = "export", description = "The rows as they are, for an audit"))
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<Archive> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(list::list, orders::put_all))
        .routes(routes!(orders::put, orders::show))
        .routes(routes!(orders::show_named))
        .routes(routes!(export::export))
}

/// The OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    problem_examples::add(&mut document);
    document
}

/// The routes.
pub fn router(archive: Archive) -> Router {
    documented().split_for_parts().0.with_state(archive)
}

/// The operator calls. As the first of a handler's parameters it has nothing
/// of a stranger's request looked at.
struct Writer;

/// The operator, the api-server or an audit calls.
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

/// An Order as Kubernetes had it, without its managed fields; `kubectl explain order` says what it consists of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = Object)]
struct Resource(Box<RawValue>);

impl TryFrom<String> for Resource {
    type Error = Problem;

    fn try_from(json: String) -> Result<Self, Problem> {
        RawValue::from_string(json).map(Resource).map_err(|error| Problem::internal(&error))
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let detail = refused.to_string();
        Problem { field: refused.field, ..Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }
}
