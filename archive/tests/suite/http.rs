//! Tests of the HTTP API: the allowed callers, the requests and the responses.

use std::{convert::Infallible, sync::Arc};

use crate::support::Sample;
use anyhow::Result;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus, UserInfo};
use orders_archive::{
    entry::MAX_RESOURCE,
    routes::{self, Archive, Callers, MAX_BODY},
    store::{MIGRATIONS, Store},
};
use orders_service::{
    auth::Authenticator,
    database::{Database, Timeouts},
    server,
};
use orders_testbed::WAIT_TIMEOUT;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const OPERATOR: &str = "system:serviceaccount:shop:orders-operator";
const API_SERVER: &str = "system:serviceaccount:shop:orders-api-server";
const AUDIT: &str = "system:serviceaccount:shop:orders-audit";
const UNAUTHORIZED: &str = "system:serviceaccount:shop:default";

/// Returns a client of a simulated Kubernetes API, for which a token is the name of its service account.
fn kubernetes_client() -> kube::Client {
    let review = |request: Request<kube::client::Body>| async move {
        let body = to_bytes(Body::new(request.into_body()), usize::MAX).await.expect("a body");
        let mut review: TokenReview = serde_json::from_slice(&body).expect("a TokenReview");
        let username = Some(review.spec.token.clone()).filter(|token| token.starts_with("system:"));
        review.status = Some(TokenReviewStatus {
            authenticated: Some(username.is_some()),
            audiences: review.spec.audiences.clone(),
            user: username.map(|username| UserInfo { username: Some(username), ..UserInfo::default() }),
            error: None,
        });
        Ok::<_, Infallible>(Response::new(Body::from(serde_json::to_vec(&review).expect("JSON"))))
    };
    kube::Client::new(tower::service_fn(review), "default")
}

/// The archive with the routes and limits of `main`, and with its own SQLite file.
struct TestServer {
    router: Router,
    _directory: TempDir,
}

impl TestServer {
    async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let url = format!("sqlite://{}", directory.path().join("archive.db").display());
        let archive = Archive {
            store: Store::new(Database::open_with_timeouts(&url, 4, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?),
            authenticator: Authenticator::new(kubernetes_client(), "orders-archive".to_owned()),
            callers: Arc::new(Callers {
                operator: OPERATOR.to_owned(),
                api_server: API_SERVER.to_owned(),
                audit: Some(AUDIT.to_owned()),
            }),
        };
        let limits = server::Limits { timeout: WAIT_TIMEOUT, concurrency: 16 };
        let router = server::with_bounds_and_body(routes::router(archive), limits, MAX_BODY);
        Ok(TestServer { router, _directory: directory })
    }

    async fn send(&self, request: Request<Body>) -> Result<(StatusCode, Value)> {
        let response = self.router.clone().oneshot(request).await?;
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await?;
        Ok((status, serde_json::from_slice(&body)?))
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Value)> {
        self.send(build_request(Method::GET, path, Some(API_SERVER), Value::Null)).await
    }

    async fn write(&self, method: Method, path: &str, body: Value) -> Result<(StatusCode, Value)> {
        self.send(build_request(method, path, Some(OPERATOR), body)).await
    }
}

fn build_request(method: Method, path: &str, token: Option<&str>, body: Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::from(body.to_string())).expect("a request")
}

fn orders(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| Sample { created_second: number as i64, ..Sample::new(&format!("u{number:03}")) }.resource()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_stored_and_found() -> Result<()> {
    let server = TestServer::start().await?;
    let order = Sample { revision: 1042, ..Sample::new("a") }.resource();
    let (status, stored) = server.write(Method::PUT, "/archive/orders/a", order.clone()).await?;
    assert_eq!((status, stored), (StatusCode::OK, json!({"uid": "a", "revision": 1042})));
    let older = Sample { revision: 7, ..Sample::new("a") }.resource();
    let (status, stored) = server.write(Method::PUT, "/archive/orders/a", older).await?;
    assert_eq!(
        (status, stored),
        (StatusCode::OK, json!({"uid": "a", "revision": 1042})),
        "the stored revision, not the revision that was sent"
    );
    for path in ["/archive/orders/a", "/archive/namespaces/shop/orders/order-a"] {
        assert_eq!(server.get(path).await?, (StatusCode::OK, order.clone()), "{path}");
    }
    for path in ["/archive/orders/b", "/archive/orders/%00", "/archive/namespaces/shop/orders/order-b", "/archive"] {
        let (status, problem) = server.get(path).await?;
        assert_eq!((status, &problem["status"]), (StatusCode::NOT_FOUND, &json!(404)), "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_order_is_answered_with_422_and_the_field() -> Result<()> {
    let server = TestServer::start().await?;
    let undecided = Sample { state: "Processing", ..Sample::new("a") }.resource();
    let mut invalid_version = Sample::new("a").resource();
    invalid_version["metadata"]["resourceVersion"] = json!("W/1");
    for (order, field) in [
        (undecided, json!("status.conditions")),
        (invalid_version, json!("metadata.resourceVersion")),
        (Sample::new("b").resource(), json!("metadata.uid")),
    ] {
        let (status, problem) = server.write(Method::PUT, "/archive/orders/a", order).await?;
        assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &field), "{problem}");
    }
    let mut large = Sample::new("a").resource();
    large["metadata"]["annotations"] = json!({"note": "x".repeat(MAX_RESOURCE)});
    assert_eq!(server.write(Method::PUT, "/archive/orders/a", large).await?.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(server.write(Method::PUT, "/archive/orders/a", json!([])).await?.0, StatusCode::UNPROCESSABLE_ENTITY);
    let huge = json!({"x": "x".repeat(MAX_BODY)});
    assert_eq!(server.write(Method::PUT, "/archive/orders/a", huge).await?.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.get("/archive/export").await?.1, json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_as_a_whole_or_the_invalid_order_is_named() -> Result<()> {
    let server = TestServer::start().await?;
    let mut batch = orders(0..500);
    batch[321]["metadata"]["uid"] = Value::Null;
    let (status, problem) = server.write(Method::POST, "/archive/orders", json!(batch)).await?;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["field"], "[321].metadata.uid", "{problem}");
    assert_eq!(server.get("/archive/export").await?.1, json!([]), "no order of the batch is stored");

    let (status, stored) = server.write(Method::POST, "/archive/orders", json!(orders(0..500))).await?;
    assert_eq!((status, stored), (StatusCode::OK, json!({"stored": 500})));
    let repeated = server.write(Method::POST, "/archive/orders", json!(orders(0..500))).await?;
    assert_eq!(repeated, (StatusCode::OK, json!({"stored": 500})));
    assert_eq!(server.get("/archive/export").await?.1.as_array().map(Vec::len), Some(500));

    assert_eq!(server.write(Method::POST, "/archive/orders", json!([])).await?.1, json!({"stored": 0}));
    for invalid in [json!(orders(0..501)), json!({}), json!([1])] {
        assert_eq!(server.write(Method::POST, "/archive/orders", invalid).await?.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_orders_of_8_kib_are_one_batch() -> Result<()> {
    let server = TestServer::start().await?;
    let mut batch = orders(0..500);
    for order in &mut batch {
        let missing = 8 * 1024 - order.to_string().len();
        order["metadata"]["managedFields"] = json!([{"manager": "x".repeat(missing - 100)}]);
    }
    assert_eq!(server.write(Method::POST, "/archive/orders", json!(batch)).await?, (StatusCode::OK, json!({"stored": 500})));
    assert_eq!(server.get("/archive/orders/u499").await?.1, orders(499..500)[0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn next_leads_to_the_next_page_of_the_listing() -> Result<()> {
    let server = TestServer::start().await?;
    server.write(Method::POST, "/archive/orders", json!(orders(0..45))).await?;
    let (mut names, mut path, mut pages) = (Vec::new(), "/archive/orders?namespace=shop".to_owned(), 0);
    loop {
        let (status, page) = server.get(&path).await?;
        assert_eq!(status, StatusCode::OK, "{page}");
        names.extend(page["items"].as_array().into_iter().flatten().map(|item| item["metadata"]["name"].to_string()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/archive/orders?namespace=shop&before={next}");
    }
    let expected: Vec<String> = (0..45).rev().map(|number| format!("\"order-u{number:03}\"")).collect();
    assert_eq!((names, pages), (expected, 3));

    let (_, page) = server.get("/archive/orders?namespace=shop&login=anna&state=Paid&from=2000000&to=4000000").await?;
    assert_eq!(
        page,
        json!({"items": [orders(3..4)[0], orders(2..3)[0]], "next": null}),
        "`from` is inclusive, `to` is exclusive"
    );
    assert_eq!(server.get("/archive/orders?namespace=elsewhere").await?.1, json!({"items": [], "next": null}));
    for (query, field) in
        [("", "namespace"), ("namespace=shop&limit=0", "limit"), ("namespace=a&namespace=a", "namespace"), ("x=1", "x")]
    {
        let (status, problem) = server.get(&format!("/archive/orders?{query}")).await?;
        assert_eq!((status, problem["field"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some(field)), "{problem}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_has_the_resource_and_the_derived_columns() -> Result<()> {
    let server = TestServer::start().await?;
    server.write(Method::POST, "/archive/orders", json!(orders(0..2))).await?;
    let (_, mut page) = server.get("/archive/export?after=u000").await?;
    assert!(page[0]["archived_at"].take().as_i64() > Some(1_737_957_687_000_000));
    let expected = json!([{
        "uid": "u001", "namespace": "shop", "name": "order-u001", "id": 14, "login": "anna", "amount": 100.5, "state": "Paid",
        "created_at": 1_000_000, "revision": 1, "archived_at": null, "resource": orders(1..2)[0]
    }]);
    assert_eq!(page, expected);
    assert_eq!(server.get("/archive/export?after=u001").await?.1, json!([]));
    assert_eq!(server.get("/archive/export?after=a%00").await?.0, StatusCode::UNPROCESSABLE_ENTITY);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_allowed_for_its_service_accounts_only() -> Result<()> {
    let server = TestServer::start().await?;
    let order = Sample::new("a").resource();
    let writes = [(Method::PUT, "/archive/orders/a", order.clone()), (Method::POST, "/archive/orders", json!([order]))];
    // The last request is invalid, but an unauthorized caller must not learn this.
    let reads = [
        ("/archive/orders/a", 200),
        ("/archive/namespaces/shop/orders/order-a", 200),
        ("/archive/orders?namespace=shop", 200),
        ("/archive/export", 200),
        ("/archive/orders?namespace=", 422),
    ];
    server.write(Method::POST, "/archive/orders", json!([order])).await?;
    for (token, write_status, read_status) in [
        (None, Some(401), Some(401)),
        (Some("garbage"), Some(401), Some(401)),
        (Some(UNAUTHORIZED), Some(403), Some(403)),
        (Some(API_SERVER), Some(403), None),
        (Some(AUDIT), Some(403), None),
        (Some(OPERATOR), None, None),
    ] {
        for (method, path, body) in writes.clone() {
            let (status, response) = server.send(build_request(method, path, token, body)).await?;
            assert_eq!(status, write_status.unwrap_or(200), "{path} by {token:?}: {response}");
        }
        for (path, allowed) in reads {
            let (status, response) = server.send(build_request(Method::GET, path, token, Value::Null)).await?;
            assert_eq!(status, read_status.unwrap_or(allowed), "{path} by {token:?}: {response}");
        }
    }
    Ok(())
}
