//! Scenarios in which the operator's view of the orders is incomplete or outdated.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_crds::{Order, OrderSpec, Outcome, Reason, Refusal};
use orders_testbed::wait_for;
use serde_json::json;

use super::assert::ensure_equal;
use crate::{
    customer,
    effect::{Channel, Component},
    fault_injector::Watches,
    retry::SETTLE_TIMEOUT,
    system::System,
    workload::{mails_of, wait_settled},
};

const LOGIN: &str = "viewer";
const NAME: &str = "order-of-viewer";

/// Longer than the operator needs for an order that it sees, and longer than it relies on
/// its view without reading the order again.
const PROCESSING_TIME: Duration = Duration::from_secs(4);

async fn prepare(system: &System) -> Result<()> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, 100).await?;
    // Until an operator watches the orders, it would list them instead.
    wait_for("the operator to watch", SETTLE_TIMEOUT, || async { system.injector.is_watched().then_some(()) }).await
}

/// Creates an order as `kubectl create` does.
async fn create(system: &System, amount: &str) -> Result<Order> {
    let email = format!("{LOGIN}@example.com");
    let spec = OrderSpec { login: LOGIN.to_owned(), email, cart_id: 0, amount: amount.to_owned(), ..OrderSpec::default() };
    Ok(system.orders().create(&PostParams::default(), &Order::new(NAME, spec)).await?)
}

async fn delete(system: &System) -> Result<()> {
    system.orders().delete(NAME, &DeleteParams::default()).await?;
    wait_for("the deletion of the order", SETTLE_TIMEOUT, || async {
        system.orders().get_opt(NAME).await.ok()?.is_none().then_some(())
    })
    .await
}

/// The number of charges that the operator requested.
fn requested_charges(system: &System) -> usize {
    let is_charge = |operation: &str| matches!(operation, "POST /billing/withdraw" | "publish orders.payment.requested");
    system.injector.effects().iter().filter(|effect| is_charge(&effect.operation)).count()
}

async fn wait_idle(system: &System) -> Result<()> {
    system.injector.wait_idle(Duration::from_millis(500), SETTLE_TIMEOUT).await
}

async fn ensure_paid_once(system: &System, balance_left: usize) -> Result<()> {
    let order = wait_settled(system, NAME).await?;
    wait_idle(system).await?;
    ensure_equal("the outcome", order.outcome(), Outcome::Paid)?;
    customer::assert_balance(system, LOGIN, balance_left).await?;
    ensure_equal("mails of the order", mails_of(system, &order).await?.len(), 1)
}

pub(super) async fn unseen_change(system: &System) -> Result<()> {
    prepare(system).await?;
    system.injector.set_watches(Watches::Paused);
    create(system, "30.00").await?;
    let patch = json!({"metadata": {"labels": {"changed": "true"}}});
    system.orders().patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await?;
    tokio::time::sleep(PROCESSING_TIME).await;
    ensure_equal("charges of an order that was not seen", requested_charges(system), 0)?;
    system.injector.set_watches(Watches::Open);
    // The operator may request the charge twice, since the first status belongs to the order before the change. Billing
    // charges once.
    ensure_paid_once(system, 70).await
}

pub(super) async fn unseen_deletion(system: &System) -> Result<()> {
    prepare(system).await?;
    system.injector.set_watches(Watches::Paused);
    let order = create(system, "30.00").await?;
    delete(system).await?;
    tokio::time::sleep(PROCESSING_TIME).await;
    system.injector.set_watches(Watches::Open);
    wait_cancelled(system, &order).await?;
    customer::assert_balance(system, LOGIN, 100).await
}

/// Waits until the customer of a deleted order is told that it is cancelled, once.
async fn wait_cancelled(system: &System, order: &Order) -> Result<()> {
    wait_for("the mail about the deleted order", SETTLE_TIMEOUT, || async {
        (!mails_of(system, order).await.ok()?.is_empty()).then_some(())
    })
    .await?;
    wait_idle(system).await?;
    ensure_equal("mails of the deleted order", mails_of(system, order).await?.len(), 1)
}

pub(super) async fn unseen_recreation(system: &System) -> Result<()> {
    prepare(system).await?;
    system.injector.set_watches(Watches::Paused);
    let first = create(system, "30.00").await?;
    delete(system).await?;
    let second = create(system, "20.00").await?;
    ensure!(first.uid() != second.uid(), "another order has another UID");
    tokio::time::sleep(PROCESSING_TIME).await;
    system.injector.set_watches(Watches::Open);
    wait_cancelled(system, &first).await?;
    ensure_paid_or_name_used(system).await
}

/// Asserts that the second order of a name is paid once, or refused because the archive had the first order before the
/// name of the second one was looked up.
async fn ensure_paid_or_name_used(system: &System) -> Result<()> {
    let order = wait_settled(system, NAME).await?;
    wait_idle(system).await?;
    let is_name_used = order.outcome() == Outcome::Refused(Refusal::AlreadyExists);
    ensure!(is_name_used || order.outcome() == Outcome::Paid, "the outcome: {:?}", order.outcome());
    customer::assert_balance(system, LOGIN, if is_name_used { 100 } else { 80 }).await?;
    ensure_equal("mails of the second order", mails_of(system, &order).await?.len(), 1)
}

pub(super) async fn recreated_meanwhile(system: &System) -> Result<()> {
    prepare(system).await?;
    system.injector.hold(Some(Channel::OperatorToKube));
    let first = create(system, "500.00").await?;
    wait_for("the request of the operator that writes the status", SETTLE_TIMEOUT, || async {
        system.injector.effects().iter().any(|effect| effect.channel == Channel::OperatorToKube).then_some(())
    })
    .await?;
    delete(system).await?;
    let second = create(system, "20.00").await?;
    system.injector.hold(None);
    ensure_paid_or_name_used(system).await?;
    ensure!(first.uid() != second.uid(), "another order has another UID");
    let order = system.orders().get(NAME).await?;
    let conditions = order.status.iter().flat_map(|status| &status.conditions);
    let of_first_order = conditions.filter(|condition| condition.reason == Reason::InsufficientFunds.as_str()).count();
    ensure_equal("conditions of the first order", of_first_order, 0)
}

pub(super) async fn expired_watch(system: &System) -> Result<()> {
    prepare(system).await?;
    system.injector.set_watches(Watches::Paused);
    create(system, "30.00").await?;
    system.injector.set_watches(Watches::Expired);
    wait_for("the watch to end", SETTLE_TIMEOUT, || async { (!system.injector.is_watched()).then_some(()) }).await?;
    // Only the next list shows the order: the watch that follows delivers no event for it.
    system.injector.set_watches(Watches::Paused);
    ensure_paid_once(system, 70).await?;
    system.injector.set_watches(Watches::Open);
    Ok(())
}

pub(super) async fn stale_restart(system: &System) -> Result<()> {
    prepare(system).await?;
    system.injector.set_watches(Watches::Paused);
    create(system, "30.00").await?;
    let unpaid = list(system).await?;
    system.injector.set_watches(Watches::Open);
    ensure_paid_once(system, 70).await?;

    let before = requested_charges(system);
    system.injector.set_watches(Watches::Paused);
    system.injector.replace_next_list(unpaid);
    for operator in [0, 1] {
        system.actors().crash(Component::Operator(operator)).await?;
    }
    wait_for("an operator to list the orders", SETTLE_TIMEOUT, || async { system.injector.has_listed().then_some(()) }).await?;
    tokio::time::sleep(PROCESSING_TIME).await;
    // If an order appears two seconds old or older, the operator looks it up instead. That happens after a slow restart.
    println!("  charges requested again from an older view: {}", requested_charges(system) - before);
    system.injector.set_watches(Watches::Open);
    ensure_paid_once(system, 70).await
}

/// The list of orders, byte for byte as the API server returns it.
async fn list(system: &System) -> Result<Bytes> {
    let path = format!("/apis/arch.homework/v1/namespaces/{}/orders", system.namespace);
    let request = hyper::Request::get(path).body(kube::client::Body::empty())?;
    let response = system.client.send(request).await?;
    response.into_body().collect_bytes().await.context("the list of orders")
}
