//! The client of the archive over HTTP.

use std::time::Duration;

use orders_crds::Order;
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::{Method, StatusCode};

use super::billing::excerpt;

/// How long one batch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response that is read, in bytes. Every correct response is smaller.
const MAX_RESPONSE: usize = 64 * 1024;

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
