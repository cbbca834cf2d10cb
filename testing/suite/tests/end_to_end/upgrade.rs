//! Tests the upgrade from the previous commit to this one, with orders in each state.
//!
//! `make test-upgrade` provides the previous commit's checkout and images. This test begins with an
//! empty cluster, so it runs separately from the others.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use orders_crds::{ConditionType, Order, Outcome, Reason, Refusal, conditions};
use orders_testbed::wait_for;
use reqwest::Method;
use serde_json::{Value, json};

use crate::release::{Release, TIMEOUT, run};

const LOGIN: &str = "upgraded";

impl Release {
    /// Removes the release, with all objects that it and its users created.
    fn remove(&self) -> Result<()> {
        run(self.command("helm").args(["uninstall", "orders", "-n", "shop", "--ignore-not-found", "--wait", "--timeout", "3m"]))?;
        self.kubectl(&["delete", "namespace", "shop", "--ignore-not-found", "--wait", "--timeout=3m"])?;
        let crds = self.kubectl(&["get", "crds", "-o", "name"])?;
        for crd in crds.lines().filter(|name| name.ends_with(".arch.homework")) {
            self.kubectl(&["delete", crd, "--wait", "--timeout=2m"])?;
        }
        Ok(())
    }

    /// Scales a service to this number of pods, and waits until they run.
    async fn scale(&self, component: &str, replicas: u32) -> Result<()> {
        let name = format!("deployment/orders-{component}");
        self.kubectl(&["scale", "-n", "shop", &name, &format!("--replicas={replicas}")])?;
        let selector = format!("app.kubernetes.io/component={component}");
        wait_for(&format!("{replicas} pods of {component}"), TIMEOUT, || async {
            let pods = self.kubectl(&["get", "pods", "-n", "shop", "-l", &selector, "-o", "name"]).ok()?;
            (pods.lines().count() == replicas as usize).then_some(())
        })
        .await
    }

    async fn post_order(&self, amount: i64, wait: u32) -> Result<i64> {
        let order = json!({"login": LOGIN, "e_mail": "upgraded@example.com", "id_cart": 1, "amount": amount});
        let request = self.http.post(format!("{}/orders/", crate::release::BASE_URL)).header("prefer", format!("wait={wait}"));
        let response: Value = request.json(&order).send().await?.json().await?;
        response["id"].as_i64().with_context(|| format!("no id in {response}"))
    }

    async fn cancel(&self, id: i64) -> Result<()> {
        let request =
            self.http.post(format!("{}/orders/{id}/cancel", crate::release::BASE_URL)).header("prefer", "respond-async");
        let status = request.send().await?.status().as_u16();
        ensure!([200, 202].contains(&status), "cancelling {id}: {status}");
        Ok(())
    }

    async fn get_order(&self, id: i64) -> Result<Value> {
        let (status, order) = self.call(Method::GET, &format!("/orders/{id}"), None).await?;
        ensure!(status == 200, "{order}");
        Ok(order)
    }

    /// Waits until a condition of an order has this reason.
    async fn wait_reason(&self, id: i64, kind: ConditionType, reason: Reason) -> Result<()> {
        wait_for(&format!("order {id} to be {reason}"), TIMEOUT, || async {
            let orders = self.orders_of(LOGIN).await.ok()?;
            let order = orders.into_iter().find(|order| order.spec.id == Some(id))?;
            let condition = conditions::find(&order.status.as_ref()?.conditions, kind)?.clone();
            (condition.reason == reason.as_str()).then_some(())
        })
        .await
    }
}

/// The checkout of the previous commit; `None` if there is no history.
fn find_previous_checkout() -> Result<Option<PathBuf>> {
    let checkout = orders_testbed::Cache::locate()?.path("previous/checkout");
    Ok(checkout.join("helm/orders/Chart.yaml").exists().then_some(checkout))
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_in_each_state_survive_an_upgrade_from_the_previous_commit() -> Result<()> {
    let Some(previous) = find_previous_checkout()? else {
        eprintln!("SKIPPED: this clone has no previous commit");
        return Ok(());
    };
    let release = Release::connect().await?;
    release.remove()?;
    release.upgrade_to(&previous, "previous", &[])?;
    release.expose()?;
    release.open_account(LOGIN, 1000).await?;

    let paid = release.post_order(100, 30).await?;
    let refused = release.post_order(5000, 30).await?;
    let refunded = release.post_order(50, 30).await?;
    let to_refund = release.post_order(30, 30).await?;
    release.cancel(refunded).await?;
    release.wait_reason(refunded, ConditionType::Succeeded, Reason::Refunded).await?;
    release.wait_settled(LOGIN).await?;
    let finished = [paid, refused, refunded];
    let mut before = Vec::new();
    for id in finished {
        before.push(release.get_order(id).await?);
    }

    // First the mail server is unavailable, then billing, then the operator.
    release.scale("inbox", 0).await?;
    let not_notified = release.post_order(10, 10).await?;
    release.wait_reason(not_notified, ConditionType::Notified, Reason::Delivering).await?;
    release.scale("billing", 0).await?;
    let unknown = release.post_order(20, 0).await?;
    let unknown_cancelled = release.post_order(25, 0).await?;
    for id in [unknown, unknown_cancelled] {
        release.wait_reason(id, ConditionType::Paid, Reason::PaymentUnknown).await?;
    }
    release.cancel(unknown_cancelled).await?;
    release.cancel(to_refund).await?;
    release.wait_reason(to_refund, ConditionType::Succeeded, Reason::RefundPending).await?;
    release.scale("operator", 0).await?;
    let unprocessed = release.post_order(40, 0).await?;
    let unprocessed_cancelled = release.post_order(45, 0).await?;
    release.cancel(unprocessed_cancelled).await?;

    // The chart takes back the ownership of the fields that were scaled by hand.
    release.upgrade(&["--force-conflicts"])?;
    release.expose()?;
    let expected = [
        (paid, Outcome::Paid),
        (refused, Outcome::Refused(Refusal::InsufficientFunds)),
        (refunded, Outcome::Refused(Refusal::Refunded)),
        (to_refund, Outcome::Refused(Refusal::Refunded)),
        (not_notified, Outcome::Paid),
        (unknown, Outcome::Paid),
        (unknown_cancelled, Outcome::Refused(Refusal::Cancelled)),
        (unprocessed, Outcome::Paid),
        (unprocessed_cancelled, Outcome::Refused(Refusal::Cancelled)),
    ];
    let unsettled = async || {
        let orders = release.orders_of(LOGIN).await?;
        let is_done = |(id, outcome): &(i64, Outcome)| {
            let order = orders.iter().find(|order| order.spec.id == Some(*id));
            order.is_some_and(|order| order.outcome() == *outcome && is_notified(order))
        };
        anyhow::Ok(expected.iter().filter(|order| !is_done(order)).collect::<Vec<_>>())
    };
    let result =
        wait_for("the expected outcome of each order", TIMEOUT, || async { unsettled().await.ok()?.is_empty().then_some(()) })
            .await;
    if let Err(error) = result {
        bail!("{error:#}; other outcomes: {:?}", unsettled().await?);
    }
    assert_eq!(release.balance(LOGIN).await?, 1000.0 - 100.0 - 10.0 - 20.0 - 40.0, "each charged once, each refund once");

    for (id, before) in finished.into_iter().zip(before) {
        let after = release.get_order(id).await?;
        for (field, value) in before.as_object().context("an order")? {
            assert_eq!(&after[field], value, "{field} of an order that was finished before the upgrade");
        }
    }
    let (status, list) = release.call(Method::GET, &format!("/orders?login={LOGIN}&limit=100"), None).await?;
    assert_eq!((status, list["items"].as_array().map(Vec::len)), (200, Some(expected.len())), "{list}");
    assert_eq!(release.place_order_with_retries(LOGIN, 5, "after-the-upgrade").await?, 200);
    release.wait_settled(LOGIN).await?;
    let result = release.kubectl_orders(&["audit", "-n", "shop"])?;
    assert_eq!(result.exit_code, Some(0), "{result:?}");
    Ok(())
}

fn is_notified(order: &Order) -> bool {
    order.status.as_ref().is_some_and(|status| status.is_notified())
}
