//! Calling another service: bounded in time and in what is read.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap},
};

use crate::token_file::TokenFile;

/// How long a connection to a service may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a call gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not reached, broken off, or not in time.
    #[error("{}", causes(.0))]
    Transport(#[from] reqwest::Error),
    /// More bytes than any right answer has.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The token to show could not be read.
    #[error("service-account token: {0}")]
    Token(#[from] std::io::Error),
}

/// A client for calls inside the cluster (plain HTTP). `timeout` bounds each
/// call from its start to the last byte of the answer.
///
/// # Errors
/// If the client cannot be built.
pub fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    Client::builder()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT)
        // Shorter than the servers keep idle connections, so that a call seldom meets one that is just closing.
        .pool_idle_timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("orders/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Another service: its URL, the token for it, and the bounds of each call.
#[derive(Clone, Debug)]
pub struct Peer {
    client: Client,
    url: String,
    token: Option<TokenFile>,
    max_answer: usize,
}

impl Peer {
    /// The service at this URL. Each call carries the token, if there is one. `timeout` bounds each call, and `max_answer`
    /// its answer, in bytes.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(url: &str, token: Option<TokenFile>, timeout: Duration, max_answer: usize) -> Result<Self, reqwest::Error> {
        Ok(Peer { client: client(timeout)?, url: url.trim_end_matches('/').to_owned(), token, max_answer })
    }

    /// A request to this path, for [`Self::send`] or [`Self::exchange`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request; the answer's status and body.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Bytes), CallError> {
        let (status, _, body) = self.exchange(request).await?;
        Ok((status, body))
    }

    /// Sends a request; the answer's status, headers and body.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn exchange(&self, mut request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Bytes), CallError> {
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.bearer().await?);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok((status, headers, body(response, self.max_answer).await?))
    }
}

/// Reads an answer's body of at most `limit` bytes.
///
/// # Errors
/// [`CallError::TooLarge`] beyond the limit; [`CallError::Transport`] if it breaks off.
pub async fn body(mut response: Response, limit: usize) -> Result<Bytes, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(CallError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(body))
}

/// reqwest's own message hides what happened behind "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
