//! The archive over HTTP.

use std::time::Duration;

use orders_crds::Order;
use orders_service::{
    http_client::{self, CallError},
    token_file::TokenFile,
};
use reqwest::{Client, StatusCode, header::AUTHORIZATION};

use super::billing::excerpt;

/// How long one batch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Larger than any right answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Orders in a batch, at most: with the longest history each has about 10 KiB.
pub const BATCH: usize = 200;

/// The archive's HTTP API.
#[derive(Clone, Debug)]
pub struct Archive {
    client: Client,
    url: String,
    token: TokenFile,
}

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
        Ok(Archive { client: http_client::client(TIMEOUT)?, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// Puts orders into the archive, all or none. Of each it keeps the latest version.
    ///
    /// # Errors
    /// [`NotArchived`].
    pub async fn put(&self, orders: &[&Order]) -> Result<(), NotArchived> {
        let (status, body) = self.post(orders).await.map_err(|error| NotArchived::Unavailable(format!("archive: {error}")))?;
        let answer = || format!("archive answered {status}: {}", excerpt(&body));
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Err(NotArchived::Refused(answer())),
            _ => Err(NotArchived::Unavailable(answer())),
        }
    }

    async fn post(&self, orders: &[&Order]) -> Result<(StatusCode, Vec<u8>), CallError> {
        let request = self.client.post(format!("{}/archive/orders", self.url)).json(orders);
        let response = request.header(AUTHORIZATION, self.token.bearer().await?).send().await?;
        let status = response.status();
        Ok((status, http_client::body(response, MAX_ANSWER).await?.into()))
    }
}
