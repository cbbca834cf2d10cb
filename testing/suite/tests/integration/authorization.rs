//! Tests of authorization: only the services may move money and send messages, and each service may make only its own calls.

use anyhow::Result;
use orders_testbed::service_account_token;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{raw, shop::Shop};

/// The balance, the orders, the messages and the mails of the only customer.
async fn read_state(shop: &Shop) -> Result<(String, usize, usize, usize)> {
    let (orders, messages) = (shop.all_orders().await?.len(), shop.messages("ida").await?.len());
    Ok((shop.balance("ida").await?, orders, messages, shop.inbox.messages().await?.len()))
}

/// The state-changing calls of the services: the service, the method, the URL and the body.
fn calls(shop: &Shop) -> [(&'static str, Method, String, Value); 7] {
    let (billing, notify) = (&shop.stack.billing.url, &shop.stack.notify.url);
    [
        ("open", Method::PUT, format!("{billing}/billing/account/zoe"), json!({})),
        (
            "withdraw",
            Method::POST,
            format!("{billing}/billing/withdraw"),
            json!({"login": "ida", "balance": 100, "authorization": {"reference": "elsewhere/order-1", "metadata": {}}}),
        ),
        ("void", Method::POST, format!("{billing}/billing/charges/unauthorized/void"), json!({})),
        ("capture", Method::POST, format!("{billing}/billing/charges/capture"), json!({"keys": ["unauthorized"]})),
        ("refill", Method::POST, format!("{billing}/billing/refill"), json!({"login": "ida", "balance": 100})),
        ("register", Method::POST, format!("{billing}/billing/register?login=eve"), json!({})),
        (
            "notify",
            Method::POST,
            format!("{notify}/notify"),
            json!({"login": "ida", "email": "ida@example.com", "text": "Hello"}),
        ),
    ]
}

impl Shop {
    fn call(&self, method: &Method, url: &str, body: &Value) -> RequestBuilder {
        self.http.request(method.clone(), url).header("idempotency-key", "unauthorized").json(body)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_public_api_can_neither_withdraw_nor_notify() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("ida", json!(500)).await?;
    let before = read_state(&shop).await?;
    let token = request_token(&shop, "orders-operator", "orders-billing").await?;
    let withdrawal = json!({"login": "ida", "balance": 100});
    let message = json!({"login": "ida", "email": "ida@example.com", "text": "Hello"});
    for (path, body) in [
        ("/billing/withdraw", &withdrawal),
        ("/billing/withdraw/", &withdrawal),
        ("/billing/account/ida", &withdrawal),
        ("/billing//withdraw", &withdrawal),
        ("/billing/Withdraw", &withdrawal),
        ("/billing/withdraw?login=ida", &withdrawal),
        ("/billing/register%2f..%2fwithdraw", &withdrawal),
        ("/notify", &message),
        ("/notify/", &message),
    ] {
        let request = || shop.request(Method::POST, path).header("idempotency-key", "unauthorized").json(body);
        for request in [request(), request().bearer_auth(&token)] {
            let response = shop.send(request).await?;
            assert!([401, 403, 404, 405].contains(&response.status), "{path}: {response:?}");
            response.assert_problem(response.status);
        }
        assert_eq!(read_state(&shop).await?, before, "{path}");
    }
    // No client library would send this request.
    let body = withdrawal.to_string();
    for path in [
        "/billing/register/../withdraw",
        "/billing/refill/../withdraw",
        "/orders/../billing/withdraw",
        "http://orders-billing/billing/withdraw",
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: unauthorized\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response = raw::send(&shop.stack.api_server.url, request.as_bytes()).await?;
        assert_eq!(response.status, 404, "{path}: {response:?}");
        assert_eq!(read_state(&shop).await?, before, "{path}");
    }
    // The public API does not forward the token of its client to a service.
    let refill = shop.request(Method::POST, "/billing/refill").bearer_auth("garbage").json(&withdrawal);
    shop.send(refill).await?.assert(200, r#"{"login":"ida","balance":600.0}"#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn billing_and_notify_accept_each_call_only_from_its_account() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("ida", json!(500)).await?;
    let before = read_state(&shop).await?;

    // Without a valid token the response is 401, whatever else is wrong with the call.
    let good = request_token(&shop, "orders-operator", "orders-billing").await?;
    let (head, signature) = good.rsplit_once('.').expect("a JWT");
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let headers = [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer garbage".to_owned()),
        Some("Bearer a.b.c".to_owned()),
        Some(format!("Bearer {}", "a".repeat(10_000))),
        Some(format!("Bearer {forged}")),
        Some(format!("Basic {good}")),
        Some(good.clone()),
    ];
    for (call, method, url, body) in calls(&shop) {
        for header in &headers {
            let with_header =
                |request: RequestBuilder| header.iter().fold(request, |request, value| request.header("authorization", value));
            let case = format!("{call} with {}", header.as_deref().map_or("nothing", |header| &header[..header.len().min(30)]));
            for request in [
                shop.call(&method, &url, &body),
                shop.http.request(method.clone(), &url).json(&body),
                shop.call(&method, &url, &json!({"login": 7})),
                shop.http.request(method.clone(), &url).body("x"),
            ] {
                let response = shop.send(with_header(request)).await?;
                assert_eq!(response.status, 401, "{case}: {response:?}");
                response.assert_problem(401);
            }
        }
        assert_eq!(read_state(&shop).await?, before, "{call}");
    }

    // (account, audience, the calls for which it is a wrong account rather than a wrong token)
    for (account, audience, forbidden_calls) in [
        ("orders-operator", "orders-billing", ["refill", "register"].as_slice()),
        ("orders-operator", "orders-notify", &[]),
        ("orders-operator", "https://kubernetes.default.svc.cluster.local", &[]),
        ("orders-api-server", "orders-billing", &["open", "withdraw", "void", "capture"]),
        ("orders-api-server", "orders-notify", &["notify"]),
        ("default", "orders-billing", &["open", "withdraw", "void", "capture", "refill", "register"]),
        ("default", "orders-notify", &["notify"]),
        ("default", "somebody-else", &[]),
    ] {
        let token = request_token(&shop, account, audience).await?;
        for (call, method, url, body) in calls(&shop) {
            let allowed = [
                ("orders-operator", "orders-billing", "open"),
                ("orders-operator", "orders-billing", "withdraw"),
                ("orders-operator", "orders-billing", "void"),
                ("orders-operator", "orders-billing", "capture"),
                ("orders-operator", "orders-notify", "notify"),
                ("orders-api-server", "orders-billing", "refill"),
                ("orders-api-server", "orders-billing", "register"),
            ];
            if allowed.contains(&(account, audience, call)) {
                continue;
            }
            let expected = if forbidden_calls.contains(&call) { 403 } else { 401 };
            // The call is made twice, since the second result comes from the cache.
            for _ in 0..2 {
                let response = shop.send(shop.call(&method, &url, &body).bearer_auth(&token)).await?;
                assert_eq!(response.status, expected, "{call} by {account} for {audience}: {response:?}");
                response.assert_problem(expected);
            }
        }
    }
    // The api-server may only read charges.
    let charge = format!("{}/billing/charges/unknown", shop.stack.billing.url);
    for (account, status) in [("orders-operator", 404), ("orders-api-server", 404), ("default", 403)] {
        let token = request_token(&shop, account, "orders-billing").await?;
        shop.send(shop.http.get(&charge).bearer_auth(&token)).await?.assert_problem(status);
    }
    shop.send(shop.http.get(&charge)).await?.assert_problem(401);
    // An account of the same name in another namespace is another account.
    let namespace = orders_testbed::Cluster::control_plane().await?.namespace("elsewhere").await?;
    let file = shop.directory.path().join("elsewhere.token");
    service_account_token(&shop.client, &namespace, "orders-operator", "orders-billing", &file).await?;
    let elsewhere = std::fs::read_to_string(&file)?;
    let (_, method, url, body) = &calls(&shop)[0];
    shop.send(shop.call(method, url, body).bearer_auth(&elsewhere)).await?.assert_problem(403);

    assert_eq!(read_state(&shop).await?, before);
    for nobody in ["eve", "zoe"] {
        shop.get(&format!("/billing/account/{nobody}")).await?.assert_problem(404);
    }

    // None of these calls is refused for another reason: with the right token, each takes effect.
    for (call, method, url, body) in calls(&shop) {
        let (account, audience) = match call {
            "open" | "withdraw" | "void" | "capture" => ("orders-operator", "orders-billing"),
            "notify" => ("orders-operator", "orders-notify"),
            _ => ("orders-api-server", "orders-billing"),
        };
        let response =
            shop.send(shop.call(&method, &url, &body).bearer_auth(request_token(&shop, account, audience).await?)).await?;
        assert_eq!(response.status, 200, "{call}: {response:?}");
    }
    assert_eq!(shop.messages("ida").await?.len(), before.2 + 1);
    assert_eq!(shop.balance("ida").await?, "600.0", "100 withdrawn and voided, 100 refilled");
    assert_eq!([shop.balance("eve").await?, shop.balance("zoe").await?], ["0.0", "0.0"]);
    Ok(())
}

/// Requests a token of an account in the shop's namespace, as the kubelet would.
async fn request_token(shop: &Shop, account: &str, audience: &str) -> Result<String> {
    let file = shop.directory.path().join("requested.token");
    service_account_token(&shop.client, &shop.stack.namespace, account, audience, &file).await?;
    Ok(std::fs::read_to_string(&file)?)
}
