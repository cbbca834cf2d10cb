//! The client of the archive over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orders_crds::Order;
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::{Method, StatusCode};

use super::billing::excerpt;
use crate::ports::{NameLookup, Names, UnknownResult};

/// How long one batch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response that is read, in bytes. An archived order has at most 64 KiB.
const MAX_RESPONSE: usize = 128 * 1024;

/// The maximum number of orders in a batch. An order with the longest history has about 10 KiB.
pub const MAX_BATCH: usize = 200;

/// The client of the archive's HTTP API.
#[derive(Clone, Debug)]
pub struct Archive(Peer);

/// Why the archive has not stored a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotArchived {
    /// The archive is unavailable, or it is unknown whether it stored the batch. Repeat the request.
    #[error("{0}")]
    Unavailable(String),
    /// The archive refuses the batch as it is.
    #[error("{0}")]
    Refused(String),
}

impl Archive {
    /// Creates a client of the service at this URL, which authenticates with this token.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Peer::new(url, Some(token), TIMEOUT, MAX_RESPONSE).map(Archive)
    }

    /// Returns the archived order with this UID, or `None` if the archive does not have it.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown whether the archive has the order.
    pub async fn find(&self, uid: &str) -> Result<Option<Order>, UnknownResult> {
        self.get(&format!("/archive/orders/{uid}")).await
    }

    async fn get(&self, path: &str) -> Result<Option<Order>, UnknownResult> {
        let unknown = |error: String| UnknownResult(format!("archive: {error}"));
        let sending = self.0.send(self.0.request(Method::GET, path));
        let (status, body) = sending.await.map_err(|error| unknown(error.to_string()))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| unknown(error.to_string())),
            StatusCode::NOT_FOUND if is_problem(&body) => Ok(None),
            _ => Err(unknown(format!("responded {status}: {}", excerpt(&body)))),
        }
    }

    /// Returns the newest archived order with this name.
    async fn find_named(&self, namespace: &str, name: &str) -> Result<Option<Order>, UnknownResult> {
        // Names in Kubernetes need no escaping in a path.
        self.get(&format!("/archive/namespaces/{namespace}/orders/{name}")).await
    }

    /// Stores orders in the archive, all or none. The archive keeps the latest version of each order.
    ///
    /// # Errors
    /// [`NotArchived`].
    pub async fn put(&self, orders: &[&Order]) -> Result<(), NotArchived> {
        let sending = self.0.send(self.0.request(Method::POST, "/archive/orders").json(orders));
        let (status, body) = sending.await.map_err(|error| NotArchived::Unavailable(format!("archive: {error}")))?;
        let error = || format!("archive responded {status}: {}", excerpt(&body));
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Err(NotArchived::Refused(error())),
            _ => Err(NotArchived::Unavailable(error())),
        }
    }
}

#[async_trait]
impl Names for Archive {
    async fn look_up(&self, order: &ObjectMeta) -> Result<NameLookup, UnknownResult> {
        let (namespace, name) = (order.namespace.as_deref().unwrap_or_default(), order.name.as_deref().unwrap_or_default());
        Ok(match self.find_named(namespace, name).await? {
            // The order itself is archived, for example before another attempt to charge it.
            Some(archived) if archived.metadata.uid == order.uid => NameLookup::Free,
            Some(archived) => NameLookup::Taken(Box::new(archived)),
            None => NameLookup::Free,
        })
    }
}

/// Whether the body is a problem (RFC 9457) of the archive, and not the page of a proxy that does not
/// know the archive.
fn is_problem(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct NotFound {
        status: u16,
    }
    serde_json::from_slice::<NotFound>(body).is_ok_and(|problem| problem.status == StatusCode::NOT_FOUND.as_u16())
}
