//! The archive over HTTP.

use std::time::Duration;

use orders_crds::Order;
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::{Method, StatusCode};

use super::billing::excerpt;

/// How long one batch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Larger than any right answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Orders in a batch, at most: with the longest history each has about 10 KiB.
pub const BATCH: usize = 200;

/// The archive's HTTP API.
#[derive(Clone, Debug)]
pub struct Archive(Peer);

/// Why the archive does not have a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotArchived {
    /// Not now, or not known: repeat it.
    #[error("{0}")]
    Unavailable(String),
    /// Not as it is.
    #[error("{0}")]
    Refused(String),
}

impl Archive {
    /// The service at this URL, shown this token.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Peer::new(url, Some(token), TIMEOUT, MAX_ANSWER).map(Archive)
    }

    /// Puts orders into the archive, all or none. Of each it keeps the latest version.
    ///
    /// # Errors
    /// [`NotArchived`].
    pub async fn put(&self, orders: &[&Order]) -> Result<(), NotArchived> {
        let sending = self.0.send(self.0.request(Method::POST, "/archive/orders").json(orders));
        let (status, body) = sending.await.map_err(|error| NotArchived::Unavailable(format!("archive: {error}")))?;
        let answer = || format!("archive answered {status}: {}", excerpt(&body));
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Err(NotArchived::Refused(answer())),
            _ => Err(NotArchived::Unavailable(answer())),
        }
    }
}
