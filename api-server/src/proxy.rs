//! A reverse proxy to another service.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use orders_contracts::IDEMPOTENCY_KEY;
use orders_service::{Problem, http_client::Peer, token_file::TokenFile};
use reqwest::Method;

/// The time limit of a call to a service.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a response, in bytes. A thousand messages of the maximum length fit in.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// The headers that are passed from the client's request to the service, and back with the
/// response.
const REQUEST_HEADERS: [&str; 3] = ["content-type", "content-encoding", IDEMPOTENCY_KEY];
const RESPONSE_HEADERS: [header::HeaderName; 3] = [header::CONTENT_TYPE, header::RETRY_AFTER, header::ACCEPT_ENCODING];

/// A service whose calls are proxied.
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    peer: Peer,
}

/// A client's request to a service.
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The path and the query, from the root of the service.
    pub path: String,
    /// The headers of the client's request.
    pub headers: &'a HeaderMap,
    /// The body of the client's request.
    pub body: Bytes,
}

impl Service {
    /// Creates a proxy for the service with this name at this URL. Each call carries the token, if
    /// there is one.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(name: &'static str, url: &str, token: Option<TokenFile>) -> Result<Self, reqwest::Error> {
        Ok(Service { name, peer: Peer::new(url, token, TIMEOUT, MAX_RESPONSE)? })
    }

    /// Forwards the request, and returns the service's response.
    ///
    /// # Errors
    /// A [`Problem`] with status 503 if the service does not respond, or refuses this process; with status
    /// 504 if it is unknown whether the call had its effect.
    pub async fn forward(&self, call: Call<'_>) -> Result<Response, Problem> {
        let is_read = call.method == Method::GET;
        let mut request = self.peer.request(call.method, &call.path).body(call.body);
        for name in REQUEST_HEADERS {
            for value in call.headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let (status, headers, body) = self.peer.exchange(request).await.map_err(|error| {
            tracing::warn!(service = self.name, %error, "the service does not respond");
            if is_read || error.is_unsent() {
                return Problem::unavailable(format!("the {} service does not respond; nothing was done. Try again later", self.name));
            }
            Problem::unknown(format!(
                "the {} service does not respond; it is unknown whether the call had its effect. Repeat it with the same Idempotency-Key, or check the effect first",
                self.name
            ))
        })?;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // The service refuses this process, not the client.
            tracing::error!(service = self.name, %status, "the service refuses the token of the api-server");
            return Err(Problem::unavailable(format!("the {} service cannot be used now; see the log", self.name)));
        }
        let mut response = Response::builder().status(status);
        for name in RESPONSE_HEADERS {
            if let Some(value) = headers.get(&name) {
                response = response.header(name, value);
            }
        }
        response.body(Body::from(body)).map_err(|error| Problem::internal(&error))
    }
}
