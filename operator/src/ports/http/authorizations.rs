//! The client of billing's authorizations. It uses HTTP in every style of interaction: the styles
//! concern the path of an order, and an authorization is settled after it.

use std::time::Duration;

use orders_contracts::billing::{CaptureRequest, CapturedCount};
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::Method;

use super::billing;
use crate::ports::UnknownResult;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response that is read, in bytes. A page of authorizations is smaller.
const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// The client of billing's authorizations.
#[derive(Clone, Debug)]
pub struct Authorizations(Peer);

impl Authorizations {
    /// Creates a client of the service at this URL, which authenticates with this token.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Peer::new(url, Some(token), TIMEOUT, MAX_RESPONSE).map(Authorizations)
    }

    /// Captures the charges with these keys, at most
    /// [`MAX_CAPTURES`](orders_contracts::billing::MAX_CAPTURES). Afterwards none of them is
    /// authorized any more. Returns how many this call captured.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown whether the charges are captured.
    pub async fn capture(&self, keys: Vec<String>) -> Result<usize, UnknownResult> {
        let request = self.0.request(Method::POST, "/billing/charges/capture").json(&CaptureRequest { keys });
        let CapturedCount { captured } = billing::parse(&billing::send(&self.0, request).await?)?;
        Ok(captured)
    }
}
