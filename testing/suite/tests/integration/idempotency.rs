//! Tests of repeated requests, of requests that do not wait for the outcome, and of the list of orders.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::future::try_join_all;
use kube::ResourceExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::shop::{Response, Shop, WAIT_TIMEOUT};
use orders_testbed::{Cluster, wait_for};

const KEY: &str = "idempotency-key";

impl Shop {
    fn refill(&self, login: &str, balance: Value) -> RequestBuilder {
        self.request(Method::POST, "/billing/refill").json(&json!({"login": login, "balance": balance}))
    }

    async fn send_all(&self, requests: impl IntoIterator<Item = RequestBuilder>) -> Result<Vec<Response>> {
        try_join_all(requests.into_iter().map(|request| self.send(request))).await
    }
}

#[track_caller]
fn assert_key_conflict(response: &Response) {
    response.assert_problem(422);
    assert_eq!(response.json()["field"], "Idempotency-Key", "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_sent_many_times_with_one_key_is_one_order_charged_once() -> Result<()> {
    let mut shop = Shop::start().await?;
    for login in ["alva", "bo"] {
        shop.open_account(login, json!(500)).await?;
    }

    // Concurrent requests with the same key.
    let responses = shop.send_all((0..20).map(|_| shop.order_request("alva", json!(100)).header(KEY, "at-once"))).await?;
    let id = responses[0].id();
    for response in &responses {
        response.assert(200, &format!(r#"{{"id":{id},"status":1}}"#));
    }
    assert_eq!(shop.balance("alva").await?, "400.0");
    shop.wait_settled().await?;
    assert_eq!(shop.messages("alva").await?.len(), 1);
    assert_eq!(shop.inbox.messages_to("alva@example.com").await?.len(), 1);
    assert_eq!(shop.all_orders().await?.len(), 1);

    // Repeats after the outcome, with another spelling, and after a restart: the key is not only in memory.
    let again = |key: &'static str, amount| shop.order_request("alva", amount).header(KEY, key);
    let same = [again("at-once", json!(100)), again("\"at-once\"", json!(100)), again("at-once", json!(100.0))];
    for response in shop.send_all(same).await? {
        response.assert(200, &format!(r#"{{"id":{id},"status":1}}"#));
    }
    shop.stack.api_server.kill()?;
    shop.stack.api_server.restart().await?;
    let again = |key: &'static str, amount| shop.order_request("alva", amount).header(KEY, key);
    shop.send(again("at-once", json!(100))).await?.assert(200, &format!(r#"{{"id":{id},"status":1}}"#));
    assert_eq!(shop.balance("alva").await?, "400.0");

    // The same key with another body, for each field that differs.
    let body = json!({"login": "alva", "e_mail": "alva@example.com", "id_cart": 0, "amount": 100});
    for (field, value) in
        [("e_mail", json!("eve@example.com")), ("id_cart", json!(1)), ("amount", json!(1)), ("amount", json!(1000))]
    {
        let mut other = body.clone();
        other[field] = value;
        let response = shop.send(shop.request(Method::POST, "/orders/").json(&other).header(KEY, "at-once")).await?;
        assert_key_conflict(&response);
        assert_eq!(response.id(), id, "the problem names the order that has the key");
    }
    assert_eq!((shop.balance("alva").await?.as_str(), shop.all_orders().await?.len()), ("400.0", 1));

    // Concurrent requests with two bodies: the same body wins for all of them.
    let amounts = (0..20).map(|number| if number % 2 == 0 { 10 } else { 20 });
    let responses = shop.send_all(amounts.clone().map(|amount| again("two-bodies", json!(amount)))).await?;
    let winner = amounts.clone().zip(&responses).find(|(_, response)| response.status == 200).expect("one body wins").0;
    for (amount, response) in amounts.zip(&responses) {
        if amount == winner { assert_eq!(response.status, 200, "{response:?}") } else { assert_key_conflict(response) }
    }
    assert_eq!(shop.balance("alva").await?, format!("{}.0", 400 - winner));
    assert_eq!(shop.all_orders().await?.len(), 2);

    // The same key of another customer is a different key. A different key, or no key, means a new order.
    let other = shop.send(shop.order_request("bo", json!(100)).header(KEY, "at-once")).await?;
    assert_eq!((other.status, other.id() != id), (200, true), "{other:?}");
    let other = shop.send(shop.order_request("bo", json!(100)).header(KEY, "at-once-2")).await?;
    assert_eq!(other.status, 200);
    assert_eq!([shop.place_order("bo", json!(100)).await?.status, shop.place_order("bo", json!(100)).await?.status], [200, 200]);
    assert_eq!(shop.balance("bo").await?, "100.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_replayed_for_its_key_even_if_the_balance_suffices_later() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("cleo", json!(50)).await?;
    let order = || shop.order_request("cleo", json!(100)).header(KEY, "refused");
    let refused = shop.send(order()).await?;
    let text = format!(r#"{{"id":{},"status":0}}"#, refused.id());
    refused.assert(400, &text);
    let nobody = || shop.order_request("nobody", json!(100)).header(KEY, "unknown");
    let unknown = shop.send(nobody()).await?;
    unknown.assert_problem(404);

    shop.send(shop.refill("cleo", json!(100))).await?.assert(200, r#"{"login":"cleo","balance":150.0}"#);
    for response in shop.send_all([order(), order(), order()]).await? {
        response.assert(400, &text);
    }
    let repeated = shop.send(nobody()).await?;
    repeated.assert_problem(404);
    assert_eq!(repeated.id(), unknown.id());
    assert_eq!(shop.balance("cleo").await?, "150.0");
    shop.wait_settled().await?;
    assert_eq!(shop.messages("cleo").await?.len(), 1, "one message");
    assert_eq!(shop.place_order("cleo", json!(100)).await?.status, 200, "a new order is paid");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refill_sent_many_times_with_one_key_adds_once() -> Result<()> {
    let shop = Shop::start().await?;
    for login in ["dora", "egon"] {
        shop.open_account(login, json!(0)).await?;
    }
    let first = r#"{"login":"dora","balance":100.5}"#;
    for response in shop.send_all((0..20).map(|_| shop.refill("dora", json!(100.5)).header(KEY, "salary"))).await? {
        response.assert(200, first);
    }
    assert_eq!(shop.balance("dora").await?, "100.5");

    shop.send(shop.refill("dora", json!(1)).header(KEY, "bonus")).await?.assert(200, r#"{"login":"dora","balance":101.5}"#);
    shop.send(shop.refill("dora", json!(100.5)).header(KEY, "salary")).await?.assert(200, first);
    assert_key_conflict(&shop.send(shop.refill("dora", json!(200)).header(KEY, "salary")).await?);
    // Another customer's key is another key.
    shop.send(shop.refill("egon", json!(7)).header(KEY, "salary")).await?.assert(200, r#"{"login":"egon","balance":7.0}"#);
    assert_eq!([shop.balance("dora").await?, shop.balance("egon").await?], ["101.5", "7.0"]);

    // Keys of refills and keys of orders are independent.
    assert_eq!(shop.send(shop.order_request("dora", json!(1.5)).header(KEY, "salary")).await?.status, 200);
    // Without a key, two requests are two refills.
    for response in shop.send_all([shop.refill("dora", json!(1)), shop.refill("dora", json!(1))]).await? {
        assert_eq!(response.status, 200, "{response:?}");
    }
    assert_eq!(shop.balance("dora").await?, "102.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_wait_finds_the_outcome_at_the_location() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("finn", json!(500)).await?;
    let order = |shop: &Shop, amount, prefer: &str| shop.order_request("finn", amount).header("prefer", prefer);

    // (amount, preference, status and reason in the end)
    for (amount, prefer, status, reason, balance) in [
        (100, "respond-async", 1, "Paid", "400.0"),
        (100, "wait=0", 1, "Paid", "300.0"),
        (1000, "respond-async, wait=20", 0, "InsufficientFunds", "300.0"),
        (1000, "Wait=\"0\"", 0, "InsufficientFunds", "300.0"),
    ] {
        let response = shop.send(order(&shop, json!(amount), prefer)).await?;
        let id = response.id();
        let location = format!("/orders/{id}");
        // A client with a short wait gets the outcome if it is already available.
        if prefer.starts_with("respond-async") || response.status == 202 {
            response.assert(202, &format!(r#"{{"id":{id},"status":2}}"#));
            assert_eq!(response.headers["location"], *location);
        }
        let shown = wait_for("the outcome", WAIT_TIMEOUT, || async {
            let shown = shop.get(&location).await.ok()?.json();
            (shown["status"] != 2).then_some(shown)
        })
        .await?;
        assert_eq!(
            (&shown["id"], &shown["status"], &shown["reason"]),
            (&json!(id), &json!(status), &json!(reason)),
            "{prefer}: {shown}"
        );
        assert_eq!((&shown["amount"], shown["balance"].to_string().as_str()), (&json!(f64::from(amount)), balance), "{shown}");
        assert_eq!(shown["history"][0]["action"], "Charge", "{shown}");
        assert_eq!(shop.balance("finn").await?, balance);
    }
    for prefer in ["wait=abc", "wait=-1", "return=minimal", "handling=strict; x"] {
        assert_eq!(shop.send(order(&shop, json!(1), prefer)).await?.status, 200, "{prefer} is unknown and ignored");
    }

    // No operator runs: the response comes at the end of the client's wait, and is not a refusal.
    shop.stack.operators[0].kill()?;
    // A request without a preference, which waits for ten seconds, starts first.
    let usual = tokio::spawn(shop.order_request("finn", json!(96)).header(KEY, "usual").send());
    wait_for("the order with the usual wait", WAIT_TIMEOUT, || async {
        let placed = shop.all_orders().await.ok()?;
        placed.iter().any(|order| order.spec.amount == "96.00").then_some(())
    })
    .await?;
    let start = Instant::now();
    let response = tokio::select! {
        response = shop.send(order(&shop, json!(96), "wait=1").header(KEY, "patience")) => response?,
        usual = usual => panic!("the usual wait ended first: {usual:?}"),
    };
    let id = response.id();
    response.assert(202, &format!(r#"{{"id":{id},"status":2}}"#));
    assert!(start.elapsed() >= Duration::from_secs(1), "waited {:?}", start.elapsed());
    assert_eq!(shop.get(&format!("/orders/{id}")).await?.json()["reason"], "Pending");
    shop.stack.operators[0].restart().await?;
    let again = shop.send(order(&shop, json!(96), "wait=30").header(KEY, "patience")).await?;
    again.assert(200, &format!(r#"{{"id":{id},"status":1}}"#));
    shop.wait_settled().await?;
    assert_eq!(shop.balance("finn").await?, "104.0", "both were charged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_page_by_page_newest_first() -> Result<()> {
    let shop = Shop::start().await?;
    for login in ["gus", "hal"] {
        shop.open_account(login, json!(500)).await?;
    }
    // Kubernetes stores creation times in whole seconds, so orders of the same second have no defined order.
    let mut groups: Vec<BTreeSet<i64>> = Vec::new();
    for _ in 0..3 {
        let mut group = BTreeSet::new();
        for _ in 0..2 {
            group.insert(shop.place_order("gus", json!(1)).await?.id());
        }
        shop.place_order("hal", json!(1)).await?;
        groups.push(group);
        let second = now_second();
        wait_for("two seconds to pass", WAIT_TIMEOUT, || async move { (now_second() > second + 1).then_some(()) }).await?;
    }
    groups.reverse();

    let mut found: Vec<i64> = Vec::new();
    let mut path = "/orders?login=gus&limit=1".to_owned();
    for page in 0..7 {
        let response = shop.get(&path).await?;
        assert_eq!(response.status, 200, "{response:?}");
        let response = response.json();
        let items = response["items"].as_array().cloned().unwrap_or_default();
        assert_eq!(items.len(), 1, "page {page}: {response}");
        assert_eq!(items[0]["login"], "gus");
        found.extend(items[0]["id"].as_i64());
        let Some(cursor) = response["next_cursor"].as_str() else { break };
        path = format!("/orders?login=gus&limit=1&cursor={cursor}");
        if page == 2 {
            // The new order belongs before the remaining pages, so it does not shift them.
            shop.place_order("gus", json!(1)).await?;
        }
    }
    let in_groups: Vec<BTreeSet<i64>> = found.chunks(2).map(|chunk| chunk.iter().copied().collect()).collect();
    assert_eq!(in_groups, groups, "each once, newest first");

    let all = shop.get("/orders/").await?.json();
    let created: Vec<_> =
        all["items"].as_array().into_iter().flatten().map(|order| order["created"].as_str().unwrap_or_default()).collect();
    assert_eq!((created.len(), &all["next_cursor"]), (10, &Value::Null), "{all}");
    assert!(created.is_sorted_by(|a, b| a >= b), "{created:?}");
    let names: BTreeSet<String> = shop.all_orders().await?.iter().map(|order| order.name_any()).collect();
    let listed: BTreeSet<String> = all["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|order| order["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(listed, names);
    let nobody = shop.get("/orders?login=nobody&limit=100").await?;
    nobody.assert(200, r#"{"items":[],"next_cursor":null}"#);
    Ok(())
}

fn now_second() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_right_after_a_cancellation_through_another_replica_has_the_new_outcome() -> Result<()> {
    let shop = Shop::start_with(&Cluster::control_plane().await?, |mut options| {
        options.api_servers = 2;
        options
    })
    .await?;
    shop.open_account("hugo", json!(500)).await?;
    let other = &shop.stack.more_api_servers[0].url;
    let body = json!({"login": "hugo", "e_mail": "hugo@example.com", "id_cart": 0, "amount": 10});
    let place = |url: &str, key: &str| shop.http.post(format!("{url}/orders/")).header(KEY, key).json(&body);
    for round in 0..30 {
        let key = format!("round-{round}");
        let placed = shop.send(place(&shop.stack.api_server.url, &key)).await?;
        assert_eq!(placed.status, 200, "{placed:?}");
        let cancelled = shop.send(shop.request(Method::POST, &format!("/orders/{}/cancel", placed.id()))).await?;
        assert_eq!(cancelled.json()["reason"], "Refunded", "{cancelled:?}");
        let repeated = shop.send(place(other, &key)).await?;
        repeated.assert(400, &format!(r#"{{"id":{},"status":0}}"#, placed.id()));
    }
    assert_eq!(shop.balance("hugo").await?, "500.0");
    Ok(())
}
