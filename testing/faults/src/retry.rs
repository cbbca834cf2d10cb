//! Retries of requests, until there is a definite response.

use std::time::Duration;

use anyhow::Result;
use orders_testbed::wait_for;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

/// The time limit for orders to settle after a fault. It is several times the operator's longest pause, which is a minute,
/// so that an attempt may fail on a slow machine.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Repeats a request, with an idempotency key if there is one, until its response is definite.
///
/// # Errors
/// If there is no definite response within [`SETTLE_TIMEOUT`].
pub async fn retry_until_definite(what: &str, request: impl Fn() -> Option<RequestBuilder>, key: &str) -> Result<(u16, Value)> {
    wait_for(&format!("a definite response to {what}"), SETTLE_TIMEOUT, || async {
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
