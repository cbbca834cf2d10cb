//! The proxy between a component and an HTTP service or the Kubernetes API.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, Uri,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::json;

use super::{Interceptor, Interruption, listen};
use crate::{effect::Channel, fault_injector::Watches};

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// The server to which requests are forwarded.
#[derive(Clone)]
pub enum Upstream {
    /// The Kubernetes API, as an administrator.
    Kube(kube::Client),
    /// A service. Its `host:port` is known as soon as it runs.
    Service(Arc<OnceLock<String>>, Client<HttpConnector, Full<Bytes>>),
}

impl Upstream {
    /// A service whose `host:port` is set later.
    pub fn service(address: Arc<OnceLock<String>>) -> Self {
        Upstream::Service(address, Client::builder(TokioExecutor::new()).build_http())
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Body>> {
        match self {
            Upstream::Kube(client) => {
                // The administrator's credentials and the API server's address replace those of the request.
                request.headers_mut().remove("authorization");
                request.headers_mut().remove("host");
                let response = client.send(request.map(kube::client::Body::from)).await?;
                Ok(response.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))
            }
            Upstream::Service(address, client) => {
                let address = address.get().context("the service does not run yet")?;
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("http://{address}{path}").parse::<Uri>()?;
                let response = client.request(request.map(Full::new)).await?;
                Ok(response.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))
            }
        }
    }
}

/// Serves on a free port, and returns the port.
///
/// # Errors
/// If no port is available.
pub async fn serve(interceptor: Interceptor, upstream: Upstream) -> Result<u16> {
    listen(move |stream| {
        let (interceptor, upstream) = (interceptor.clone(), upstream.clone());
        async move {
            let handler = service_fn(move |request| {
                // A separate task handles the request, so that its effect takes place even if the actor does not wait for it.
                let response = tokio::spawn(handle(interceptor.clone(), upstream.clone(), request));
                async move { response.await? }
            });
            Ok(http1::Builder::new().serve_connection(TokioIo::new(stream), handler).await?)
        }
    })
    .await
}

/// Handles a request. An error breaks the connection without a response.
async fn handle(interceptor: Interceptor, upstream: Upstream, request: Request<Incoming>) -> Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let request = Request::from_parts(parts, body.collect().await?.to_bytes());
    let Some(operation) = effect(interceptor.channel, request.method(), request.uri().path()) else {
        return forward_read(&interceptor, &upstream, request).await;
    };
    let (fault, _in_progress) = interceptor.injector.intercept(interceptor.channel, &operation, interceptor.component);
    interceptor.injector.wait_while_held(interceptor.channel).await;
    match interceptor.inject_before(fault).await {
        Some(Interruption::Disconnect) => return Err(anyhow!("the connection is closed before the effect")),
        Some(Interruption::Reply(code)) => return error_response(interceptor.channel, code),
        None => {}
    }
    let response = upstream.send(request).await?;
    let (parts, body) = response.into_parts();
    // The effect has taken place when the response is complete.
    let body = body.collect().await?.to_bytes();
    match interceptor.inject_after(fault).await {
        true => Ok(Response::from_parts(parts, full_body(body))),
        false => Err(anyhow!("the reply is lost")),
    }
}

/// The operation of a request that changes something or reads the archive. `None` for requests that do not count as
/// effects. Renewals of the Lease do not count, since they depend on the clock.
fn effect(channel: Channel, method: &Method, path: &str) -> Option<String> {
    if channel == Channel::ApiServerToArchive {
        // These requests only read, but their result decides whether an order is new.
        let resource = if path.contains("/namespaces/") { "orders/NAME" } else { "orders" };
        return Some(format!("{method} {resource}"));
    }
    if method == Method::GET {
        return None;
    }
    if !matches!(channel, Channel::ApiServerToKube | Channel::OperatorToKube) {
        // Keys differ between runs.
        let segments: Vec<&str> = path.split('/').map(|segment| if segment.len() > 30 { "KEY" } else { segment }).collect();
        return Some(format!("{method} {}", segments.join("/")));
    }
    let after_namespace =
        path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')).map_or(path, |(_, rest)| rest);
    let mut segments = after_namespace.split('/');
    let (resource, subresource) = (segments.next()?, segments.nth(1));
    match (resource, subresource) {
        ("leases", _) => None,
        (resource, None) => Some(format!("{method} {resource}")),
        (resource, Some(subresource)) => Some(format!("{method} {resource}/{subresource}")),
    }
}

/// Forwards a request that changes nothing.
async fn forward_read(interceptor: &Interceptor, upstream: &Upstream, request: Request<Bytes>) -> Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let of_orders = interceptor.channel == Channel::OperatorToKube && request.uri().path().ends_with("/orders");
    let is_watch = query.contains("watch=");
    if of_orders
        && !is_watch
        && let Some(list) = interceptor.injector.take_next_list()
    {
        return Ok(Response::builder().header("content-type", "application/json").body(full_body(list))?);
    }
    let response = upstream.send(request).await?;
    Ok(if of_orders && is_watch { response.map(|body| controlled_watch(body, interceptor)) } else { response })
}

/// The body of a watch, whose events pass or stop according to the fault injector.
fn controlled_watch(body: Body, interceptor: &Interceptor) -> Body {
    let watches = interceptor.injector.watches();
    let frames = stream::unfold(Some((body, watches)), |state| async {
        let (mut body, mut watches) = state?;
        loop {
            let now = *watches.borrow_and_update();
            match now {
                Watches::Expired => return Some((Ok(Frame::data(expired_event())), None)),
                Watches::Paused => watches.changed().await.ok()?,
                Watches::Open => tokio::select! {
                    changed = watches.changed() => changed.ok()?,
                    frame = body.frame() => return Some((frame?, Some((body, watches)))),
                },
            }
        }
    });
    StreamBody::new(frames.map(|frame: Result<Frame<Bytes>>| frame)).boxed_unsync()
}

fn expired_event() -> Bytes {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version", "metadata": {}});
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}

fn error_response(channel: Channel, code: u16) -> Result<Response<Body>> {
    let kube = matches!(channel, Channel::ApiServerToKube | Channel::OperatorToKube);
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let (content_type, body) = match kube {
        true => (
            "application/json",
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                "message": "an injected fault", "metadata": {}}),
        ),
        false => ("application/problem+json", json!({"status": code, "title": reason, "detail": "an injected fault"})),
    };
    let body = full_body(Bytes::from(body.to_string()));
    Ok(Response::builder().status(code).header("content-type", content_type).body(body)?)
}

fn full_body(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_named_after_the_resource_that_they_change() {
        let kube = |method: Method, path: &str| effect(Channel::OperatorToKube, &method, path);
        let orders = "/apis/arch.homework/v1/namespaces/shop/orders";
        assert_eq!(kube(Method::GET, orders), None);
        assert_eq!(kube(Method::POST, orders).as_deref(), Some("POST orders"));
        assert_eq!(kube(Method::PATCH, &format!("{orders}/order-1/status")).as_deref(), Some("PATCH orders/status"));
        assert_eq!(kube(Method::PATCH, "/apis/coordination.k8s.io/v1/namespaces/shop/leases/l"), None);
        let archive = |path: &str| effect(Channel::ApiServerToArchive, &Method::GET, path);
        assert_eq!(archive("/archive/namespaces/shop-17/orders/order-5").as_deref(), Some("GET orders/NAME"));
        assert_eq!(archive("/archive/orders").as_deref(), Some("GET orders"));
        assert_eq!(
            effect(Channel::OperatorToBilling, &Method::POST, "/billing/withdraw").as_deref(),
            Some("POST /billing/withdraw")
        );
    }
}
