//! The state that the handlers share, and the authentication of callers.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use orders_service::{Problem, auth::Authenticator};

use crate::store::Store;

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

/// An extractor that accepts only the operator. It is the first parameter of a handler, so that the
/// service reads nothing else of an unauthorized request.
pub(super) struct Writer;

/// An extractor that accepts only the operator, the api-server and the audit.
pub(super) struct Reader;

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
