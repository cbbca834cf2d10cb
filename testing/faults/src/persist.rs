//! Requests of a careful client: repeated until there is a definite response.

use std::time::Duration;

use anyhow::Result;
use orders_testbed::wait_for;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

/// The time limit for orders to settle after a fault. It is several times the operator's longest pause, which is a minute,
/// so that an attempt may fail on a slow machine.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(300);

/// Repeats a request, with an idempotency key if there is one, until its response is definite, as a careful client would.
///
/// # Errors
/// If there is no definite response within [`SETTLE_LIMIT`].
pub async fn persist(what: &str, request: impl Fn() -> Option<RequestBuilder>, key: &str) -> Result<(u16, Value)> {
    wait_for(&format!("a definite answer to {what}"), SETTLE_LIMIT, || async {
        let request = if key.is_empty() { request()? } else { request()?.header("idempotency-key", key) };
        let response = request.send().await.ok()?;
        let status = response.status();
        let body: Value = response.json().await.ok()?;
        // Without a key, a conflict means that an earlier attempt succeeded.
        let conflict = status == StatusCode::CONFLICT && !key.is_empty();
        let indefinite = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || conflict;
        (!indefinite).then(|| (status.as_u16(), body))
    })
    .await
}
