//! Tests of invalid input: the response is a clear problem, nothing is charged or stored, and the services keep running.

use anyhow::Result;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, Request},
};
use orders_crds::{ConditionType, Order, Outcome, conditions};
use orders_testbed::wait_for;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    raw,
    shop::{Response, Shop, WAIT_TIMEOUT, name, reasons},
};

/// A string of ten kilobytes.
fn long_text() -> String {
    "a".repeat(10_000)
}

/// The state that invalid input could have changed: the customers' balances, the orders,
/// the messages, the mail.
async fn read_state(shop: &Shop, logins: &[&str]) -> Result<(Vec<String>, Vec<String>, usize)> {
    let mut accounts = Vec::new();
    for login in logins {
        accounts.push(format!("{} {:?}", shop.balance(login).await?, shop.messages(login).await?));
    }
    let mut orders: Vec<String> = shop.all_orders().await?.iter().map(|order| order.name_any()).collect();
    orders.sort();
    Ok((accounts, orders, shop.inbox.messages().await?.len()))
}

impl Response {
    /// Asserts that the response is a problem that names the field and does not repeat the input.
    #[track_caller]
    fn assert_problem_with(&self, status: u16, field: Option<&str>, case: &str) {
        assert_eq!(self.status, status, "{case}: {self:?}");
        self.assert_problem(status);
        let problem = self.json();
        assert_eq!(problem["field"].as_str(), field, "{case}: {problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(field.is_none_or(|field| detail.contains(field)), "{case}: the detail names {field:?}: {problem}");
        assert!(self.text.len() < 1000, "{case}: a response of {} bytes: {}", self.text.len(), &self.text[..200]);
    }
}

/// Invalid amounts, as they appear in a body, with the expected status.
fn bad_amounts() -> Vec<(String, u16)> {
    let invalid = [
        "-1",
        "-0.01",
        "0",
        "0.0",
        "-0",
        "0e5",
        "1e400",
        "-1e400",
        "1e-400",
        "0.001",
        "100.005",
        "1e-3",
        "1234567890123456789",
        "1000000000000",
        "9999999999999.99",
        "99999999999999999999999999999999999999.99",
        r#""100""#,
        r#""""#,
        r#""NaN""#,
        "null",
        "true",
        "[100]",
        r#"{"value":100}"#,
    ];
    let malformed = ["NaN", "Infinity", "-Infinity", "1,5", "0100", ".5", "+1", "0x10", "1_000", "١٢", ""];
    let mut all: Vec<_> = invalid.map(|amount| (amount.to_owned(), 422)).into();
    all.extend(malformed.map(|amount| (amount.to_owned(), 400)));
    all.push((format!("\"{}\"", long_text()), 422));
    all.push(("9".repeat(10_000), 422));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_a_bad_field_is_refused_with_its_name_and_nothing_is_charged() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("rosa", json!(500)).await?;
    let before = read_state(&shop, &["rosa"]).await?;

    // (body, status, field)
    let mut cases: Vec<(String, u16, Option<&str>)> = Vec::new();
    for (amount, status) in bad_amounts() {
        let body = format!(r#"{{"login":"rosa","e_mail":"rosa@example.com","id_cart":0,"amount":{amount}}}"#);
        cases.push((body, status, (status == 422).then_some("amount")));
    }
    let good = json!({"login": "rosa", "e_mail": "rosa@example.com", "id_cart": 0, "amount": 1});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string()
    };
    for login in ["", " ", "ro sa", "rosa\r\nX-Admin: 1", "rosa\n", "\rrosa", "-rosa", "../rosa", "роза", "rosa\0", &long_text()]
    {
        cases.push((with("login", json!(login)), 422, Some("login")));
    }
    for email in [
        "",
        "rosa",
        "rosa@",
        "@example.com",
        "rosa@example",
        "rosa@@example.com",
        "rosa @example.com",
        "rosa@example..com",
        "<rosa@example.com>",
        "rosa@example.com, eve@example.com",
        "rosa@example.com\r\nBcc: eve@example.com",
        "rosa@example.com\n",
        "роза@пример.рф",
        &long_text(),
        &format!("{}@example.com", long_text()),
        &format!("rosa@{}.com", long_text()),
    ] {
        cases.push((with("e_mail", json!(email)), 422, Some("e_mail")));
    }
    for cart in
        [json!(-1), json!(1.5), json!("0"), json!(long_text()), json!(null), json!(9_007_199_254_740_992_u64), json!(1e300)]
    {
        cases.push((with("id_cart", cart), 422, Some("id_cart")));
    }
    for field in ["login", "e_mail", "id_cart", "amount"] {
        cases.push((with(field, json!({})), 422, Some(field)));
        let mut body = good.clone();
        body.as_object_mut().expect("an object").remove(field);
        cases.push((body.to_string(), 422, Some(field)));
        let twice = good.to_string().replacen('{', &format!(r#"{{"{field}":{},"#, good[field]), 1);
        cases.push((twice, 422, Some(field)));
    }
    cases.push((with("status", json!(1)), 422, Some("status")));
    cases.push((with("balance", json!(1)), 422, Some("balance")));

    for (body, status, field) in cases {
        let case: String = body.chars().take(200).collect();
        let request = shop.request(Method::POST, "/orders/").header("content-type", "application/json").body(body);
        shop.send(request).await?.assert_problem_with(status, field, &case);
        assert_eq!(read_state(&shop, &["rosa"]).await?, before, "{case}");
    }
    // The response does not repeat a long unknown field name in full either.
    let extra =
        shop.request(Method::POST, "/orders/").header("content-type", "application/json").body(with(&long_text(), json!(1)));
    let extra = shop.send(extra).await?;
    extra.assert_problem(422);
    assert!(extra.text.len() < 1000, "a response of {} bytes", extra.text.len());
    assert_eq!(read_state(&shop, &["rosa"]).await?, before);

    assert_eq!(shop.place_order("rosa", json!(100)).await?.status, 200, "the service still works");
    assert_eq!(shop.balance("rosa").await?, "400.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_refills_and_registrations_change_no_balance() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("sven", json!(500)).await?;
    let before = read_state(&shop, &["sven"]).await?;
    let refill =
        |body: String| shop.request(Method::POST, "/billing/refill").header("content-type", "application/json").body(body);

    for (amount, status) in bad_amounts() {
        let case: String = amount.chars().take(50).collect();
        let response = shop.send(refill(format!(r#"{{"login":"sven","balance":{amount}}}"#))).await?;
        response.assert_problem_with(status, (status == 422).then_some("balance"), &case);
        assert_eq!(read_state(&shop, &["sven"]).await?, before, "{case}");
    }
    for (body, field) in [
        (json!({"login": "sven"}), "balance"),
        (json!({"balance": 1}), "login"),
        (json!({"login": "sven", "balance": 1, "bonus": 1}), "bonus"),
        (json!({"login": 7, "balance": 1}), "login"),
        (json!({"login": "sven\r\nX: y", "balance": 1}), "login"),
        (json!({"login": long_text(), "balance": 1}), "login"),
    ] {
        shop.send(refill(body.to_string())).await?.assert_problem_with(422, Some(field), field);
    }
    shop.post("/billing/refill", json!({"login": "nobody", "balance": 1})).await?.assert_problem_with(
        404,
        Some("login"),
        "nobody",
    );
    shop.get("/billing/account/nobody").await?.assert_problem_with(404, Some("login"), "a refill opens no account");
    // Each amount is allowed, but their sum is not.
    shop.post("/billing/refill", json!({"login": "sven", "balance": 999_999_999_999.99})).await?.assert_problem_with(
        422,
        Some("balance"),
        "too much",
    );

    let register = |query: &str| shop.request(Method::POST, &format!("/billing/register{query}"));
    shop.send(register("?login=sven")).await?.assert_problem_with(409, Some("login"), "registered twice");
    let long_query = format!("?login={}", long_text());
    for query in [
        "",
        "?",
        "?login",
        "?login=",
        "?user=sven",
        "?login=new&login=new",
        "?login=a%20b",
        "?login=new%0D%0AX-Admin:%201",
        "?login=new%0A",
        "?login=%FF%FE",
        "?login=new%00",
        "?login=%D1%81",
        "?login=-new",
        "?login=..%2Fnew",
        &long_query,
    ] {
        shop.send(register(query)).await?.assert_problem_with(422, Some("login"), query);
    }
    shop.get("/billing/account/new").await?.assert_problem_with(404, Some("login"), "no part of a login was registered");
    assert_eq!(read_state(&shop, &["sven"]).await?, before);

    shop.open_account("tove", json!(0.01)).await?;
    assert_eq!(shop.balance("tove").await?, "0.01", "the service still works");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_explained_and_have_no_effect() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("uwe", json!(500)).await?;
    let before = read_state(&shop, &["uwe"]).await?;
    let order = br#"{"login":"uwe","e_mail":"uwe@example.com","id_cart":0,"amount":1}"#.as_slice();
    let refill = br#"{"login":"uwe","balance":1}"#.as_slice();

    for (path, good) in [("/orders/", order), ("/orders", order), ("/billing/refill", refill)] {
        let post = || shop.request(Method::POST, path);
        for content_type in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
        {
            let request = content_type.into_iter().fold(post(), |request, value| request.header("content-type", value));
            let response = shop.send(request.body(good)).await?;
            response.assert_problem_with(415, None, &format!("{path} {content_type:?}"));
            assert!(response.text.contains("application/json"), "it names the expected type: {response:?}");
        }
        let broken_text = good.iter().map(|byte| if *byte == b'w' { 0xff } else { *byte }).collect();
        let cut = good[..good.len() - 1].to_vec();
        let twice = [good, good].concat();
        for body in [
            broken_text,
            vec![0xff, 0xfe],
            vec![],
            cut,
            twice,
            b"{".to_vec(),
            b"uwe".to_vec(),
            b"[".repeat(8000),
            [b"\xef\xbb\xbf", good].concat(),
        ] {
            let case = format!("{path} {}", String::from_utf8_lossy(&body[..body.len().min(80)]));
            let response = shop.send(post().header("content-type", "application/json").body(body)).await?;
            response.assert_problem_with(400, None, &case);
        }
        // The last two are the fields' values without their names.
        for body in ["null", "[]", "7", r#""uwe""#, r#"["uwe","uwe@example.com",0,1]"#, r#"["uwe",1]"#] {
            let response = shop.send(post().header("content-type", "application/json").body(body)).await?;
            response.assert_problem_with(422, None, &format!("{path} {body}"));
            assert_eq!(read_state(&shop, &["uwe"]).await?, before, "{path} {body}");
        }
        // A client that is still sending must receive the refusal, each time.
        for size in [17_000, 2_000_000].into_iter().flat_map(|size| [size; 10]) {
            let padded = [good, &b" ".repeat(size)].concat();
            let response = shop.send(post().header("content-type", "application/json").body(padded)).await?;
            response.assert_problem_with(413, None, &format!("{path} {size} bytes"));
        }
        let untyped = shop.send(post().body(vec![b' '; 2_000_000])).await?;
        assert!([413, 415].contains(&untyped.status), "{untyped:?}");
        untyped.assert_problem(untyped.status);

        let spaced = "a b".to_owned();
        for key in [String::new(), spaced, "\"\"".to_owned(), "ключ".to_owned(), "a".repeat(256), long_text()] {
            let request = post().header("content-type", "application/json").header("idempotency-key", key.clone()).body(good);
            let case = format!("{path} key of {} bytes", key.len());
            shop.send(request).await?.assert_problem_with(400, Some("Idempotency-Key"), &case);
        }
        let two_keys =
            post().header("content-type", "application/json").header("idempotency-key", "a").header("idempotency-key", "b");
        shop.send(two_keys.body(good)).await?.assert_problem_with(400, Some("Idempotency-Key"), "two keys");
        // A line break in a header cannot be sent by a client library; the server ends the connection with 400.
        for key in ["a\rb", "a\r\n b", "a\0b"] {
            let length = good.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nIdempotency-Key: {key}\r\n\r\n"
            );
            let response = raw::send(&shop.stack.api_server.url, &[head.as_bytes(), good].concat()).await?;
            assert_eq!(response.status, 400, "{key:?}: {response:?}");
        }
        assert_eq!(read_state(&shop, &["uwe"]).await?, before, "{path}");
    }

    // An unexpected body does no harm.
    let register = shop.request(Method::POST, "/billing/register?login=uwe").body(vec![b'x'; 2_000_000]);
    let register = shop.send(register).await?;
    assert!([409, 413].contains(&register.status), "{register:?}");
    register.assert_problem(register.status);

    // (path, status)
    let mut paths: Vec<(String, u16)> = Vec::new();
    for login in ["%FF", "a%0D%0Ab", "a%20b", "%2e%2e%2fwithdraw", "-a", "%00", &long_text()] {
        paths.push((format!("/billing/account/{login}"), 422));
        paths.push((format!("/notify/log/{login}"), 422));
        paths.push((format!("/orders?login={login}"), 422));
    }
    for id in [
        "0",
        "-1",
        "1.0",
        "abc",
        "014",
        "%FF",
        "1%0D%0A",
        "9007199254740992",
        "99999999999999999999",
        "1",
        "..%2f..",
        &long_text(),
    ] {
        paths.push((format!("/orders/{id}"), 404));
    }
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=abc",
        "limit=1.5",
        "limit=99999999999999999999",
        "limit=",
        "limit=1&limit=2",
        "cursor=",
        "cursor=abc",
        "cursor=%FF",
        "cursor=%0D%0A",
        "page=2",
        "login=",
    ] {
        paths.push((format!("/orders?{query}"), 422));
        paths.push((format!("/orders/?{query}"), 422));
    }
    paths.push((format!("/orders?cursor={}", long_text()), 422));
    paths.push((format!("/orders?limit={}", long_text()), 422));
    for path in ["/nothing", "/billing", "/billing/account/", "/notify/log", "//orders", "/orders/1/2"] {
        paths.push((path.to_owned(), 404));
    }
    for (path, status) in paths {
        let response = shop.get(&path).await?;
        let case: String = path.chars().take(60).collect();
        assert_eq!(response.status, status, "{case}: {response:?}");
        response.assert_problem(status);
        assert!(response.text.len() < 1000, "{case}: a response of {} bytes", response.text.len());
    }
    for (method, path) in [
        (Method::DELETE, "/orders/"),
        (Method::PUT, "/orders/1"),
        (Method::GET, "/billing/refill"),
        (Method::GET, "/billing/register?login=uwe"),
        (Method::POST, "/notify/log/uwe"),
    ] {
        let response = shop.send(shop.request(method.clone(), path)).await?;
        response.assert_problem_with(405, None, path);
        assert!(response.headers.contains_key("allow"), "{response:?}");
    }
    assert_eq!(read_state(&shop, &["uwe"]).await?, before);
    assert_eq!(shop.place_order("uwe", json!(100)).await?.status, 200, "the service still works");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_an_unknown_login_is_not_found_and_charges_no_account() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("vera", json!(500)).await?;

    let posted = shop.place_order("nobody", json!(100)).await?;
    posted.assert_problem_with(404, Some("login"), "posted");
    let order = shop.orders().get(&name(posted.id())).await?;
    assert_eq!(reasons(&order)[..2], ["AccountNotFound"; 2], "the order stays, with the reason: {order:?}");
    let shown = shop.get(&format!("/orders/{}", posted.id())).await?.json();
    assert_eq!((&shown["status"], &shown["reason"]), (&json!(0), &json!("AccountNotFound")), "{shown}");
    shop.get("/billing/account/nobody").await?.assert_problem(404);

    apply(&shop, "by-hand", json!({"login": "nemo", "email": "nemo@example.com", "cartId": 0, "amount": "100"})).await?;
    let refused = shop.wait_order("by-hand", "refused", |order| order.outcome() != Outcome::Undecided).await?;
    let status = refused.status.clone().unwrap_or_default();
    let succeeded = conditions::find(&status.conditions, ConditionType::Succeeded).expect("the condition");
    assert_eq!((&*succeeded.status, &*succeeded.reason), ("False", "AccountNotFound"));
    assert!(succeeded.message.contains("nemo") && succeeded.message.contains("register"), "{}", succeeded.message);
    assert_eq!((status.charge, status.balance), (None, None), "no charge, no balance");

    assert_eq!(shop.balance("vera").await?, "500.0");
    shop.open_account("nobody", json!(100)).await?;
    assert_eq!(shop.place_order("nobody", json!(100)).await?.status, 200, "after the registration, a new order is paid");
    Ok(())
}

/// Creates an order as `kubectl create` and a first `kubectl apply` do.
async fn apply(shop: &Shop, name: &str, spec: Value) -> Result<DynamicObject, kube::Error> {
    let order = DynamicObject::new(name, &ApiResource::erase::<Order>(&())).data(json!({ "spec": spec }));
    let body = serde_json::to_vec(&order).expect("a JSON value");
    let orders = Request::new(Order::url_path(&(), Some(&shop.stack.namespace)));
    let mut request = orders.create(&PostParams::default(), body).expect("a request");
    *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().expect("a URI");
    shop.client.request(request).await
}

/// The error that kubectl would print.
#[track_caller]
fn error_message<T: std::fmt::Debug>(result: Result<T, kube::Error>, case: &str) -> String {
    match result {
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => status.message,
        other => panic!("{case}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_the_invalid_field_and_cannot_edit_an_order() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("wim", json!(500)).await?;
    let before = read_state(&shop, &["wim"]).await?;
    let good = json!({"login": "wim", "email": "wim@example.com", "cartId": 0, "amount": "100"});

    let mut cases: Vec<(&str, Value)> = Vec::new();
    for amount in [
        "-5",
        "0",
        "0.00",
        "NaN",
        "1e400",
        "1e2",
        "1.005",
        "1234567890123456789",
        "1000000000000",
        "",
        " 5",
        "5 ",
        "05",
        "+5",
        ".5",
        "5.",
        "1,5",
        "5\n",
        "5\r\n",
        "١",
        &long_text(),
    ] {
        cases.push(("amount", json!(amount)));
    }
    cases.extend([("amount", json!(100)), ("amount", json!(1.5)), ("amount", json!([])), ("amount", json!(null))]);
    for login in ["", "a b", "wim\n", "wim\r\nX: y", "-wim", "../wim", "вим", &long_text()] {
        cases.push(("login", json!(login)));
    }
    for email in [
        "",
        "wim",
        "wim@",
        "wim@example",
        "wim@example.com\n",
        "wim@example.com\r\nBcc: eve@example.com",
        "a, b@example.com",
        &long_text(),
        &format!("wim@{}.com", long_text()),
        &format!("{}@example.com", "a".repeat(65)),
    ] {
        cases.push(("email", json!(email)));
    }
    cases.extend([json!(-1), json!("0"), json!(1.5), json!(9_007_199_254_740_992_u64)].map(|cart| ("cartId", cart)));
    cases.extend([json!(0), json!(-1), json!("1"), json!(9_007_199_254_740_992_u64)].map(|id| ("id", id)));
    // The number of another order, as a copy has it.
    cases.push(("id", json!(7)));
    cases.push(("colour", json!("blue")));
    for (field, value) in cases {
        let mut spec = good.clone();
        spec[field] = value.clone();
        let case: String = format!("{field} {value}").chars().take(80).collect();
        let message = error_message(apply(&shop, "bad", spec).await, &case);
        assert!(message.contains(&format!("spec.{field}")), "{case}: {message}");
    }
    for field in ["amount", "login", "email", "cartId"] {
        let mut spec = good.clone();
        spec.as_object_mut().expect("an object").remove(field);
        let message = error_message(apply(&shop, "bad", spec).await, field);
        assert!(message.contains(&format!("spec.{field}")) && message.contains("Required"), "{field}: {message}");
    }
    assert_eq!(read_state(&shop, &["wim"]).await?, before, "nothing was stored");

    // The order has no id and claims to be paid already. It is charged like any other order.
    let resource = ApiResource::erase::<Order>(&());
    let raw: Api<DynamicObject> = Api::namespaced_with(shop.client.clone(), &shop.stack.namespace, &resource);
    let forged = json!({"conditions": [{"type": "Succeeded", "status": "True", "reason": "Paid", "message": "", "lastTransitionTime": "2025-01-27T06:01:27Z"}]});
    let order = DynamicObject::new("by-hand", &resource).data(json!({"spec": good, "status": forged}));
    raw.create(&PostParams::default(), &order).await?;
    let paid = shop
        .wait_order("by-hand", "paid and notified", |order| order.status.as_ref().is_some_and(|status| status.is_notified()))
        .await?;
    assert_eq!((paid.outcome(), paid.spec.id), (Outcome::Paid, None));
    assert_eq!(shop.balance("wim").await?, "400.0");
    assert_eq!(shop.messages("wim").await?.len(), 1);
    let listed = wait_for("it to be listed", WAIT_TIMEOUT, || async {
        shop.get("/orders?login=wim").await.ok()?.json()["items"].get(0).cloned()
    })
    .await?;
    assert_eq!((&listed["name"], &listed["id"]), (&json!("by-hand"), &Value::Null), "{listed}");

    for edit in [
        json!({"amount": "1"}),
        json!({"amount": "100.00"}),
        json!({"login": "eve"}),
        json!({"email": "eve@example.com"}),
        json!({"cartId": 1}),
        json!({"id": 7}),
    ] {
        let edited = raw.patch("by-hand", &PatchParams::default(), &Patch::Merge(json!({ "spec": edit }))).await;
        let message = error_message(edited, &edit.to_string());
        assert!(message.contains("immutable"), "{edit}: {message}");
    }
    let after = shop.orders().get("by-hand").await?;
    assert_eq!(after.spec, paid.spec);

    assert_eq!(shop.balance("wim").await?, "400.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_deleted_before_its_charge_is_never_charged() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("xenia", json!(500)).await?;

    // No operator runs. The response comes as soon as the order is deleted, earlier than that for an order that remains.
    shop.stack.operators[0].kill()?;
    let wait = |amount: i64| shop.order_request("xenia", json!(amount)).header("prefer", "wait=60").send();
    let remaining = tokio::spawn(wait(1));
    wait_for("the order that remains", WAIT_TIMEOUT, || async { shop.all_orders().await.ok()?.pop() }).await?;
    let waiting = tokio::spawn(wait(100));
    let placed = wait_for("the order", WAIT_TIMEOUT, || async {
        shop.all_orders().await.ok()?.into_iter().find(|order| order.spec.amount == "100.00")
    })
    .await?;
    shop.orders().delete(&placed.name_any(), &DeleteParams::default()).await?;
    let response = tokio::select! {
        response = waiting => response??,
        other = remaining => panic!("the response to the other order came first: {other:?}"),
    };
    assert_eq!(response.status(), 410);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&response.text().await?)?;
    let id = problem["id"].as_i64().expect("the problem names the order");
    assert_eq!(name(id), placed.name_any());
    shop.get(&format!("/orders/{id}")).await?.assert_problem(404);
    shop.stack.operators[0].restart().await?;
    // When a later order is paid, the operator has seen all earlier ones.
    assert_eq!(shop.place_order("xenia", json!(1)).await?.status, 200);
    shop.wait_settled().await?;
    assert_eq!(shop.balance("xenia").await?, "498.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_plain_json_is_named_and_has_no_effect() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("quinn", json!(500)).await?;
    let order = json!({"login": "quinn", "e_mail": "quinn@example.com", "id_cart": 0, "amount": 100}).to_string();
    let refill = json!({"login": "quinn", "balance": 100}).to_string();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (path, body) in [("/orders/", &order), ("/billing/refill", &refill)] {
        let gzip = || [&b"\x1f\x8b\x08\0"[..], body.as_bytes()].concat();
        for (content_type, encoding, body, status, detail) in [
            ("application/json", Some("gzip"), gzip(), 415, "gzip"),
            ("application/json", None, gzip(), 400, "gzip"),
            ("application/json; charset=utf-16", None, utf16(body), 415, "utf-16"),
            ("application/json", None, utf16(body), 400, "UTF-16"),
            ("application/json", None, [b"\xef\xbb\xbf", body.as_bytes()].concat(), 400, "byte order mark"),
            ("application/json", None, body.replace("quinn", "qu\u{ed}nn").chars().map(|c| c as u8).collect(), 400, "not UTF-8"),
            ("application/json", None, Vec::new(), 400, "empty"),
        ] {
            let request = shop.request(Method::POST, path).header("content-type", content_type).body(body);
            let response =
                shop.send(encoding.iter().fold(request, |request, name| request.header("content-encoding", *name))).await?;
            response.assert_problem(status);
            assert!(response.json()["detail"].as_str().unwrap_or_default().contains(detail), "{path} {detail}: {response:?}");
            assert_eq!(response.headers.contains_key("accept-encoding"), encoding.is_some(), "{path}: {response:?}");
        }
    }
    assert_eq!((shop.balance("quinn").await?, shop.all_orders().await?.len()), ("500.0".to_owned(), 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_an_address_with_a_tag_and_an_international_domain_are_accepted() -> Result<()> {
    let shop = Shop::start().await?;
    let login = "ivan+shop@example.com";
    // In a query, a plus sign stands for a space.
    let unescaped = shop.send(shop.request(Method::POST, &format!("/billing/register?login={login}"))).await?;
    unescaped.assert_problem(422);
    assert!(unescaped.text.contains("%2B"), "{unescaped:?}");
    shop.send(shop.request(Method::POST, "/billing/register?login=ivan%2Bshop@example.com"))
        .await?
        .assert(200, r#"{"login":"ivan+shop@example.com","balance":0.0}"#);
    shop.post("/billing/refill", json!({"login": login, "balance": 500})).await?;
    let body = json!({"login": login, "e_mail": "ivan@пример.рф", "id_cart": 0, "amount": 100});
    let placed = shop.post("/orders/", body).await?;
    assert_eq!(placed.status, 200, "{placed:?}");
    assert_eq!(shop.balance(login).await?, "400.0");
    shop.wait_settled().await?;
    assert_eq!(shop.inbox.messages_to("ivan@xn--e1afmkfd.xn--p1ai").await?.len(), 1);
    let shown = shop.get(&format!("/orders/{}", placed.id())).await?.json();
    assert_eq!(shown["e_mail"], "ivan@xn--e1afmkfd.xn--p1ai", "{shown}");
    shop.get("/orders?login=ivan+shop@example.com").await?.assert_problem(422);
    assert_eq!(shop.get("/orders?login=ivan%2Bshop@example.com").await?.status, 200);
    assert_eq!(shop.get(&format!("/notify/log/{login}")).await?.json().as_array().map(Vec::len), Some(1));
    Ok(())
}
