//! Scenarios in which the operator's view of the orders is incomplete or outdated.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_crds::{Order, OrderSpec, Outcome, Reason};
use orders_testbed::wait_for;
use serde_json::json;

use super::same;
use crate::{
    customer,
    effect::{Channel, Part},
    persist::SETTLE_LIMIT,
    shop::Shop,
    switchboard::Watches,
    workload::{mails_of, settled},
};

const LOGIN: &str = "viewer";
const NAME: &str = "order-of-viewer";

/// Longer than the operator needs for an order that it sees, and longer than it relies on
/// its view without reading the order again.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

async fn open(shop: &Shop) -> Result<()> {
    shop.board.begin(Vec::new());
    customer::register(shop, LOGIN, 100).await?;
    // Until an operator watches the orders, it would list them instead.
    wait_for("the operator to watch", SETTLE_LIMIT, || async { shop.board.is_watched().then_some(()) }).await
}

/// Creates an order as `kubectl create` does.
async fn create(shop: &Shop, amount: &str) -> Result<Order> {
    let email = format!("{LOGIN}@example.com");
    let spec = OrderSpec { login: LOGIN.to_owned(), email, cart_id: 0, amount: amount.to_owned(), ..OrderSpec::default() };
    Ok(shop.orders().create(&PostParams::default(), &Order::new(NAME, spec)).await?)
}

async fn delete(shop: &Shop) -> Result<()> {
    shop.orders().delete(NAME, &DeleteParams::default()).await?;
    wait_for("the order to be gone", SETTLE_LIMIT, || async { shop.orders().get_opt(NAME).await.ok()?.is_none().then_some(()) })
        .await
}

/// The number of charges that the operator requested.
fn charges_asked_for(shop: &Shop) -> usize {
    let is_one = |operation: &str| matches!(operation, "POST /billing/withdraw" | "publish orders.payment.requested");
    shop.board.seen().iter().filter(|effect| is_one(&effect.operation)).count()
}

async fn at_rest(shop: &Shop) -> Result<()> {
    shop.board.rest(Duration::from_millis(500), SETTLE_LIMIT).await
}

async fn paid_once(shop: &Shop, balance_left: usize) -> Result<()> {
    let order = settled(shop, NAME).await?;
    at_rest(shop).await?;
    same("the outcome", order.outcome(), Outcome::Paid)?;
    customer::assert_balance(shop, LOGIN, balance_left).await?;
    same("mails of the order", mails_of(shop, &order).await?.len(), 1)
}

pub(super) async fn unseen_change(shop: &Shop) -> Result<()> {
    open(shop).await?;
    shop.board.set_watches(Watches::Paused);
    create(shop, "30.00").await?;
    let patch = json!({"metadata": {"labels": {"changed": "true"}}});
    shop.orders().patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await?;
    tokio::time::sleep(LONG_ENOUGH).await;
    same("charges of an order that was not seen", charges_asked_for(shop), 0)?;
    shop.board.set_watches(Watches::Open);
    // The operator may request the charge twice, since the first status belongs to the order before the change. Billing
    // charges once.
    paid_once(shop, 70).await
}

pub(super) async fn unseen_deletion(shop: &Shop) -> Result<()> {
    open(shop).await?;
    shop.board.set_watches(Watches::Paused);
    create(shop, "30.00").await?;
    delete(shop).await?;
    tokio::time::sleep(LONG_ENOUGH).await;
    shop.board.set_watches(Watches::Open);
    tokio::time::sleep(LONG_ENOUGH).await;
    at_rest(shop).await?;
    customer::assert_balance(shop, LOGIN, 100).await?;
    same("mails", shop.inbox.messages().await?.len(), 0)
}

pub(super) async fn unseen_recreation(shop: &Shop) -> Result<()> {
    open(shop).await?;
    shop.board.set_watches(Watches::Paused);
    let first = create(shop, "30.00").await?;
    delete(shop).await?;
    let second = create(shop, "20.00").await?;
    ensure!(first.uid() != second.uid(), "another order has another UID");
    tokio::time::sleep(LONG_ENOUGH).await;
    shop.board.set_watches(Watches::Open);
    paid_once(shop, 80).await?;
    same("mails of the first order", mails_of(shop, &first).await?.len(), 0)
}

pub(super) async fn recreated_meanwhile(shop: &Shop) -> Result<()> {
    open(shop).await?;
    shop.board.hold(Some(Channel::OperatorToKube));
    let first = create(shop, "500.00").await?;
    wait_for("the operator to be about to write the status", SETTLE_LIMIT, || async {
        shop.board.seen().iter().any(|effect| effect.channel == Channel::OperatorToKube).then_some(())
    })
    .await?;
    delete(shop).await?;
    let second = create(shop, "20.00").await?;
    shop.board.hold(None);
    paid_once(shop, 80).await?;
    ensure!(first.uid() != second.uid(), "another order has another UID");
    let stands = shop.orders().get(NAME).await?;
    let refused = stands.status.iter().flat_map(|status| &status.conditions);
    let of_the_first = refused.filter(|condition| condition.reason == Reason::InsufficientFunds.as_str()).count();
    same("conditions that are the first order's", of_the_first, 0)
}

pub(super) async fn expired_watch(shop: &Shop) -> Result<()> {
    open(shop).await?;
    shop.board.set_watches(Watches::Paused);
    create(shop, "30.00").await?;
    shop.board.set_watches(Watches::Expired);
    wait_for("the watch to end", SETTLE_LIMIT, || async { (!shop.board.is_watched()).then_some(()) }).await?;
    // Only the next list shows the order: the watch that follows delivers no event for it.
    shop.board.set_watches(Watches::Paused);
    paid_once(shop, 70).await?;
    shop.board.set_watches(Watches::Open);
    Ok(())
}

pub(super) async fn stale_restart(shop: &Shop) -> Result<()> {
    open(shop).await?;
    shop.board.set_watches(Watches::Paused);
    create(shop, "30.00").await?;
    let unpaid = list(shop).await?;
    shop.board.set_watches(Watches::Open);
    paid_once(shop, 70).await?;

    let asked = charges_asked_for(shop);
    shop.board.set_watches(Watches::Paused);
    shop.board.answer_next_list_with(unpaid);
    for operator in [0, 1] {
        shop.actors().crash(Part::Operator(operator)).await?;
    }
    wait_for("an operator to list the orders", SETTLE_LIMIT, || async { shop.board.has_listed().then_some(()) }).await?;
    tokio::time::sleep(LONG_ENOUGH).await;
    // If an order appears two seconds old or older, the operator looks it up instead. That happens after a slow restart.
    println!("  charges asked for again from an older view: {}", charges_asked_for(shop) - asked);
    shop.board.set_watches(Watches::Open);
    paid_once(shop, 70).await
}

/// The list of orders, byte for byte as the API server returns it.
async fn list(shop: &Shop) -> Result<Bytes> {
    let path = format!("/apis/arch.homework/v1/namespaces/{}/orders", shop.namespace);
    let request = hyper::Request::get(path).body(kube::client::Body::empty())?;
    let response = shop.client.send(request).await?;
    response.into_body().collect_bytes().await.context("the list of orders")
}
