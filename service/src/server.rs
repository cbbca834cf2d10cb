//! An HTTP server with its bounds: size, time, number of requests at once.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    error_handling::HandleErrorLayer,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use axum_prometheus::{EndpointLabel, PrometheusMetricLayerBuilder};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    Problem,
    shutdown::{GRACE, Shutdown},
};

/// The largest request body, in bytes. The bodies of this API are a few hundred.
pub const MAX_BODY: usize = 16 * 1024;

/// What one server takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest a request may take.
    pub timeout: Duration,
    /// Requests at once; one more is answered 503.
    pub concurrency: usize,
}

/// Binds an address.
///
/// # Errors
/// If it cannot be bound; the message names it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}"))
}

/// Puts the bounds, metrics and request logs around a router. What it refuses is
/// `application/problem+json`.
pub fn with_bounds(router: Router, limits: Limits) -> Router {
    let metrics = PrometheusMetricLayerBuilder::new().with_endpoint_label_type(EndpointLabel::MatchedPath).build();
    router
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; see the Allow header")
        })
        .layer(
            ServiceBuilder::new()
                .layer(CatchPanicLayer::custom(|_| Problem::internal(&"a handler panicked").into_response()))
                .layer(HandleErrorLayer::new(refused))
                .layer(LoadShedLayer::new())
                .layer(GlobalConcurrencyLimitLayer::new(limits.concurrency))
                .layer(TimeoutLayer::new(limits.timeout))
                .layer(DefaultBodyLimit::max(MAX_BODY)),
        )
        .layer(TraceLayer::new_for_http())
        .layer(metrics)
}

async fn refused(error: BoxError) -> Response {
    if error.is::<tower::timeout::error::Elapsed>() {
        Problem::unavailable("the request took too long").into_response()
    } else if error.is::<tower::load_shed::error::Overloaded>() {
        Problem::unavailable("too many requests at once").into_response()
    } else {
        Problem::internal(&error).into_response()
    }
}

/// Serves until shutdown, then lets requests that were begun finish, within [`GRACE`].
pub async fn run(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let stop = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.requested());
    let out_of_time = async {
        shutdown.requested().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = serving => if let Err(error) = result { tracing::error!(%error, "the HTTP server failed") },
        () = out_of_time => tracing::warn!("some requests did not finish in time"),
    }
}
