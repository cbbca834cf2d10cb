//! The client of billing's authorizations. It uses HTTP in every style of interaction: the styles
//! concern the path of an order, and an authorization is settled after it.

use std::time::Duration;

use orders_contracts::billing::{Authorization, CaptureRequest, CapturedCount, Void};
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::{Method, StatusCode};

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

    /// Returns a page of the charges that have been authorized for at least `min_age`, in the order of
    /// their IDs. The page begins after the ID `after`, and is empty after the last one.
    ///
    /// # Errors
    /// [`UnknownResult`].
    pub async fn list(&self, after: i64, min_age: Duration) -> Result<Vec<Authorization>, UnknownResult> {
        let query = [("after", after.to_string()), ("min_age_seconds", min_age.as_secs().to_string())];
        let request = self.0.request(Method::GET, "/billing/authorizations").query(&query);
        billing::parse(&billing::send(&self.0, request).await?)
    }

    /// Voids the authorized charge with this key, once. Returns `None` if the charge is captured.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown whether the charge is voided.
    pub async fn void(&self, key: &str) -> Result<Option<Void>, UnknownResult> {
        // A key is a UID, at most with a dot and a number: it needs no escaping in a path.
        let request = self.0.request(Method::POST, &format!("/billing/charges/{key}/void"));
        let sending = self.0.send(request);
        let (status, body) = sending.await.map_err(|error| UnknownResult(format!("billing: {error}")))?;
        match status {
            StatusCode::OK => {
                let void: Void = billing::parse(&body)?;
                let is_other = void.key != key;
                if is_other {
                    Err(UnknownResult("billing's response is about another charge".to_owned()))
                } else {
                    Ok(Some(void))
                }
            }
            StatusCode::CONFLICT => Ok(None),
            _ => Err(UnknownResult(format!("billing responded {status}: {}", billing::excerpt(&body)))),
        }
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
