//! Paths without authentication for load balancers outside the cluster, which probe a pod or the
//! Service themselves, and the start page.

use axum::{extract::State, http::StatusCode, response::Html};
use orders_service::admin::ReadyCheck;

/// The start page. Its status is 200 instead of a redirect, because many load balancers probe `/` and expect
/// this status.
pub(super) async fn start_page() -> Html<&'static str> {
    Html(
        "<!doctype html><html lang=\"en\"><title>orders</title><meta http-equiv=\"refresh\" content=\"0; url=/docs/\">\
         <p><a href=\"/docs/\">The documentation of this API</a></p></html>\n",
    )
}

/// 200 while the process responds.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// 200 while requests can be handled. The reason of another status is on the admin port and in the log: it can name
/// internals.
pub(super) async fn ready(State(check): State<ReadyCheck>) -> (StatusCode, &'static str) {
    match check().await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}
