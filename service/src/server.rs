//! An HTTP server with limits on the size of a body, the time of a request and the number of
//! concurrent requests.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    error_handling::HandleErrorLayer,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use axum_prometheus::{EndpointLabel, PrometheusMetricLayerBuilder};
use futures::StreamExt;
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{Problem, shutdown::Shutdown};

/// The default size limit of a request body, in bytes. Most bodies have a few hundred bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// How much of a larger body is read and discarded before it is refused, in bytes.
const MAX_DISCARDED: usize = 8 * 1024 * 1024;

/// Linux's error number for an address family that the kernel does not support.
const EAFNOSUPPORT: i32 = 97;

/// The limits of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time limit of a request.
    pub timeout: Duration,
    /// The maximum number of concurrent requests. A further request is answered 503.
    pub concurrency: usize,
}

/// Binds a TCP listener to an address. `[::]` stands for all addresses: those of IPv6 and of IPv4, or only
/// those of IPv4 on a machine without IPv6.
///
/// # Errors
/// If the address cannot be bound. The message names the address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}"))
}

/// Whether the machine has no IPv6: the kernel does not know its addresses (EAFNOSUPPORT), or it is disabled.
fn is_without_ipv6(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == std::io::ErrorKind::AddrNotAvailable
}

/// Adds the limits, metrics and request logs to a router. A refusal is answered with
/// `application/problem+json`.
pub fn with_bounds(router: Router, limits: Limits) -> Router {
    with_bounds_and_body(router, limits, MAX_BODY)
}

/// Like [`with_bounds`], with request bodies of up to `max_body` bytes.
pub fn with_bounds_and_body(router: Router, limits: Limits, max_body: usize) -> Router {
    let metrics = PrometheusMetricLayerBuilder::new().with_endpoint_label_type(EndpointLabel::MatchedPath).build();
    router
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not allow this method; see the Allow header")
        })
        .layer(
            ServiceBuilder::new()
                .layer(CatchPanicLayer::custom(|_| Problem::internal(&"a handler panicked").into_response()))
                .layer(HandleErrorLayer::new(respond_to_error))
                .layer(LoadShedLayer::new())
                .layer(GlobalConcurrencyLimitLayer::new(limits.concurrency))
                .layer(TimeoutLayer::new(limits.timeout))
                .layer(from_fn(move |request, next| read_whole_body(request, next, max_body)))
                // By default, axum reads no more than 2 MB.
                .layer(DefaultBodyLimit::disable()),
        )
        .layer(TraceLayer::new_for_http())
        .layer(metrics)
}

async fn read_whole_body(request: Request, next: Next, max_body: usize) -> Response {
    let (parts, body) = request.into_parts();
    match read(body, max_body).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(problem) => problem.into_response(),
    }
}

/// Reads a body to its end, even if it is too large. Otherwise, a client that is still sending
/// would find the connection reset and never receive the response.
async fn read(body: Body, max_body: usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let (mut buffer, mut length) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is incomplete: {error}")))?;
        length += chunk.len();
        if length <= max_body {
            buffer.extend_from_slice(&chunk);
        } else if length > max_body.max(MAX_DISCARDED) {
            break;
        }
    }
    if length > max_body {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max_body} bytes")));
    }
    Ok(Bytes::from(buffer))
}

async fn respond_to_error(error: BoxError) -> Response {
    if error.is::<tower::timeout::error::Elapsed>() {
        Problem::unknown("the request timed out; it is unknown whether it had its effect").into_response()
    } else if error.is::<tower::load_shed::error::Overloaded>() {
        Problem::unavailable("too many concurrent requests; nothing was done").into_response()
    } else {
        Problem::internal(&error).into_response()
    }
}

/// Serves until shutdown, then lets the requests in progress finish within
/// [`GRACE`](crate::shutdown::GRACE).
pub async fn run(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let stop = shutdown.clone();
    // Responses are small and written at once. Nagle's algorithm would only delay them.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.requested());
    tokio::select! {
        result = serving => if let Err(error) = result { tracing::error!(%error, "the HTTP server failed") },
        () = shutdown.grace_elapsed() => tracing::warn!("some requests did not finish within the grace period"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let listener = bind((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
    }

    #[test]
    fn a_machine_without_ipv6_is_recognized_by_the_kernels_error() {
        use std::io::{Error, ErrorKind};
        assert!(is_without_ipv6(&Error::from_raw_os_error(EAFNOSUPPORT)) && is_without_ipv6(&ErrorKind::AddrNotAvailable.into()));
        assert!(!is_without_ipv6(&ErrorKind::AddrInUse.into()));
    }
}
