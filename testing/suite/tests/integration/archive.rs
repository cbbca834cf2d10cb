//! Tests of the archive: finished orders are stored in it, deleted from Kubernetes, and found again.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::DeleteParams;
use orders_testbed::{Cluster, wait_for};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    audit::run_audit,
    shop::{Response, Shop, WAIT_TIMEOUT, name},
};

/// Longer than the operator needs to archive an order, to wait until no reader relies on the resource, and to delete it.
const REMOVAL_TIMEOUT: Duration = WAIT_TIMEOUT;

/// A shop whose orders are deleted as soon as they are finished and archived.
async fn start_with_zero_ttl(change: impl FnOnce(&mut Vec<(&'static str, &'static str, String)>)) -> Result<Shop> {
    Shop::start_with(&Cluster::control_plane().await?, |mut options| {
        options.env.push(("operator", "TTL_SECONDS_AFTER_FINISHED", "0".to_owned()));
        change(&mut options.env);
        options
    })
    .await
}

impl Shop {
    /// Calls the archive with this service's token for it.
    pub async fn call_archive(&self, account: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Response> {
        let token = std::fs::read_to_string(self.directory.path().join(format!("{account}-archive.token")))?;
        let request: RequestBuilder = self.http.request(method, format!("{}{path}", self.stack.archive.url));
        let request = request.bearer_auth(token.trim());
        self.send(body.into_iter().fold(request, |request, body| request.json(body))).await
    }

    /// Waits until no order is live any more.
    async fn wait_until_removed(&self) -> Result<()> {
        wait_for("all orders to be removed", REMOVAL_TIMEOUT, || async { self.all_orders().await.ok()?.is_empty().then_some(()) })
            .await
    }

    async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.http.get(self.stack.operators[0].metrics_url()).send().await?.text().await?;
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name} "))).with_context(|| format!("{name} in {text}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    }

    /// The ids of all orders of a login, page by page.
    async fn list_ids(&self, login: &str, limit: u8) -> Result<Vec<i64>> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/orders?login={login}&limit={limit}{cursor}")).await?;
            assert_eq!(page.status, 200, "{page:?}");
            ids.extend(page.json()["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_i64()));
            match page.json()["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(ids),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_order_gets_the_same_responses_as_before() -> Result<()> {
    let shop = start_with_zero_ttl(|_| {}).await?;
    shop.open_account("lena", json!(500)).await?;
    let order = || shop.order_request("lena", json!(100)).header("idempotency-key", "once");
    let first = shop.send(order()).await?;
    let (paid, refused) = (first.id(), shop.place_order("lena", json!(1000)).await?.id());
    shop.wait_settled().await?;
    let shown = [shop.get(&format!("/orders/{paid}")).await?, shop.get(&format!("/orders/{refused}")).await?];
    shop.wait_until_removed().await?;

    for (id, before) in [paid, refused].into_iter().zip(shown) {
        assert_eq!(shop.get(&format!("/orders/{id}")).await?.text, before.text);
    }
    shop.send(order()).await?.assert(200, &first.text);
    let other = shop.order_request("lena", json!(99)).header("idempotency-key", "once");
    shop.send(other).await?.assert_problem(422);
    assert_eq!(shop.balance("lena").await?, "400.0", "charged once");
    assert_eq!(shop.all_orders().await?.len(), 0, "no order was created again");

    for action in ["cancel", "retry", "notifications/resend"] {
        for id in [paid, refused] {
            shop.send(shop.request(Method::POST, &format!("/orders/{id}/{action}"))).await?.assert_problem(409);
        }
    }
    // The list contains live and archived orders, newest first, with any page size.
    let live = shop.place_order("lena", json!(1)).await?.id();
    for limit in [1, 2, 100] {
        let mut listed = shop.list_ids("lena", limit).await?;
        assert_eq!(listed.first(), Some(&live));
        listed.sort_unstable();
        let mut all = [paid, refused, live];
        all.sort_unstable();
        assert_eq!(listed, all, "each once, with pages of {limit}");
    }
    let paid_only = shop.get("/orders?login=lena&state=Paid").await?.json();
    assert_eq!(paid_only["items"].as_array().map(Vec::len), Some(2), "{paid_only}");
    let none = shop.get("/orders?login=lena&to=2020-01-01T00:00:00Z").await?.json();
    assert_eq!(none, json!({"items": [], "next_cursor": null}));
    // An order that changes in the meantime is not counted.
    shop.wait_settled().await?;
    let result = run_audit(&shop, &[]).await?;
    assert_eq!(result.exit_code, Some(0), "{}", result.output);
    assert!(result.output.contains("3 orders"), "{}", result.output);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_archive_no_order_is_removed_and_new_orders_are_limited() -> Result<()> {
    let mut shop = start_with_zero_ttl(|env| env.push(("api-server", "MAX_LIVE_ORDERS", "3".to_owned()))).await?;
    shop.open_account("arno", json!(500)).await?;
    shop.stack.archive.kill()?;
    for _ in 0..3 {
        assert_eq!(shop.place_order("arno", json!(10)).await?.status, 200);
    }
    let refused = wait_for("orders to be refused", WAIT_TIMEOUT, || async {
        let response = shop.place_order("arno", json!(10)).await.ok()?;
        (response.status == 503).then_some(response)
    })
    .await?;
    refused.assert_problem(503);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    // Only the archive knows whether the order was placed before, and an incomplete list would be wrong.
    shop.send(shop.order_request("arno", json!(10)).header("idempotency-key", "k")).await?.assert_problem(503);
    shop.get("/orders").await?.assert_problem(503);

    // The TTL of these orders has passed, and the operator has checked them several times since.
    shop.wait_settled().await?;
    let attempts = || shop.stack.operators[0].process.output().matches("not archived; retrying").count();
    let before = attempts();
    wait_for("the operator to try the archive five times", WAIT_TIMEOUT, || async { (attempts() >= before + 5).then_some(()) })
        .await?;
    let remaining = shop.all_orders().await?.len();
    assert!(remaining >= 3, "{remaining} remain");
    assert_eq!(shop.metric("orders_archive_backlog").await?, remaining as f64);
    shop.stack.archive.restart().await?;
    shop.wait_until_removed().await?;
    assert_eq!(shop.list_ids("arno", 2).await?.len(), remaining, "all are found in the archive");
    assert_eq!(shop.metric("orders_archive_backlog").await?, 0.0);
    wait_for("the next order to be accepted", WAIT_TIMEOUT, || async {
        (shop.place_order("arno", json!(10)).await.ok()?.status == 200).then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_order_that_a_user_deletes_is_found_in_the_archive() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("dirk", json!(500)).await?;
    let id = shop.place_order("dirk", json!(100)).await?.id();
    shop.wait_settled().await?;
    shop.orders().delete(&name(id), &DeleteParams::default()).await?;
    assert_eq!(shop.wait_archived(id).await?["reason"], "Paid");
    assert_eq!(shop.balance("dirk").await?, "400.0", "the deletion of a finished order refunds nothing");
    let result = run_audit(&shop, &[]).await?;
    assert_eq!(result.exit_code, Some(0), "{}", result.output);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_archived_unchanged_and_readable_by_authorized_accounts() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("ida", json!(500)).await?;
    let id = shop.place_order("ida", json!(100.5)).await?.id();
    let orders = shop.wait_settled().await?;
    let order = orders.first().context("an order")?;
    let order = serde_json::to_value(order)?;
    let (uid, name) = (order["metadata"]["uid"].as_str().unwrap_or_default(), format!("order-{id}"));
    assert!(order["metadata"]["managedFields"].is_array(), "Kubernetes records the managers of the fields: {order}");

    let batch = json!([order]);
    for account in ["api-server", "audit"] {
        shop.call_archive(account, Method::POST, "/archive/orders", Some(&batch)).await?.assert_problem(403);
    }
    shop.call_archive("operator", Method::POST, "/archive/orders", Some(&batch)).await?.assert(200, r#"{"stored":1}"#);
    let put = shop.call_archive("operator", Method::PUT, &format!("/archive/orders/{uid}"), Some(&order)).await?;
    assert_eq!(put.json()["revision"].to_string(), order["metadata"]["resourceVersion"].as_str().unwrap_or_default());

    shop.stack.archive.kill()?;
    shop.stack.archive.restart().await?;
    let mut expected = order.clone();
    expected["metadata"].as_object_mut().context("metadata")?.remove("managedFields");
    let namespace = shop.stack.namespace.clone();
    for account in ["operator", "api-server", "audit"] {
        let get = async |path: &str| shop.call_archive(account, Method::GET, path, None).await;
        assert_eq!(get(&format!("/archive/orders/{uid}")).await?.json(), expected, "{account}");
        assert_eq!(get(&format!("/archive/namespaces/{namespace}/orders/{name}")).await?.json(), expected, "{account}");
        let page = get(&format!("/archive/orders?namespace={namespace}&login=ida&state=Paid")).await?;
        assert_eq!(page.json(), json!({"items": [expected], "next": null}), "{account}");
        let rows = get("/archive/export").await?.json();
        assert_eq!(
            (&rows[0]["uid"], &rows[0]["amount"], &rows[0]["resource"]),
            (&json!(uid), &json!(100.5), &expected),
            "{account}"
        );
    }
    let billing_token = std::fs::read_to_string(shop.directory.path().join("operator-billing.token"))?;
    let request = shop.http.get(format!("{}/archive/export", shop.stack.archive.url)).bearer_auth(billing_token.trim());
    shop.send(request).await?.assert_problem(401);
    Ok(())
}
