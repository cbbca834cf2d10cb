//! HTTP calls to other services, with limits on the time and on the size of each response.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap},
};

use crate::token_file::TokenFile;

/// How long a connection to a service may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why a call returned no usable response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service was not reached, the connection broke, or the call timed out.
    #[error("{}", error_chain(.0))]
    Transport(#[from] reqwest::Error),
    /// The response is larger than any valid response.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// The service-account token could not be read.
    #[error("service-account token: {0}")]
    Token(#[from] std::io::Error),
}

impl CallError {
    /// Whether the request was certainly not sent.
    pub fn is_unsent(&self) -> bool {
        match self {
            CallError::Transport(error) => error.is_connect() || error.is_builder(),
            CallError::Token(_) => true,
            CallError::TooLarge(_) => false,
        }
    }
}

/// Creates a client for calls within the cluster (plain HTTP). `timeout` limits each call, from its
/// start to the last byte of the response.
///
/// # Errors
/// If the client cannot be built.
pub fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    Client::builder()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT)
        // Servers keep idle connections longer than this, so a call rarely uses a connection that
        // the server is closing.
        .pool_idle_timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        // The calls and their tokens stay in the cluster, also if its pods have HTTP_PROXY.
        .no_proxy()
        .user_agent(concat!("orders/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Another service: its URL, the token that each call carries, and the limits of each call.
#[derive(Clone, Debug)]
pub struct Peer {
    client: Client,
    url: String,
    token: Option<TokenFile>,
    max_response: usize,
}

impl Peer {
    /// Creates a peer for the service at this URL. Each call carries the token, if there is one.
    /// `timeout` limits each call, and `max_response` limits its response, in bytes.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(url: &str, token: Option<TokenFile>, timeout: Duration, max_response: usize) -> Result<Self, reqwest::Error> {
        Ok(Peer { client: client(timeout)?, url: url.trim_end_matches('/').to_owned(), token, max_response })
    }

    /// Builds a request to this path, for [`Self::send`] or [`Self::exchange`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request and returns the status and body of the response.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Bytes), CallError> {
        let (status, _, body) = self.exchange(request).await?;
        Ok((status, body))
    }

    /// Sends a request and returns the status, headers and body of the response.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn exchange(&self, mut request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Bytes), CallError> {
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.bearer().await?);
        }
        let mut response = request.send().await?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        Ok((status, headers, body(response, self.max_response).await?))
    }
}

/// Reads a response body of at most `limit` bytes.
///
/// # Errors
/// [`CallError::TooLarge`] beyond the limit; [`CallError::Transport`] if the connection breaks.
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

/// The message of an error with its causes. reqwest's own message, "error sending request", does
/// not name the cause.
fn error_chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
