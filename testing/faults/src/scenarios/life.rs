//! Scenarios about the deletion of orders: while they are charged, and after they are archived.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use kube::api::{DeleteParams, ListParams, PostParams};
use orders_crds::{Order, OrderSpec};
use orders_testbed::wait_for;
use serde_json::Value;

use super::assert::ensure_equal;
use crate::{
    customer,
    effect::{Channel, Component},
    retry::SETTLE_TIMEOUT,
    system::System,
};

const LOGIN: &str = "leaver";
const ORDERS: usize = 20;

/// How long billing is held: longer than the operator waits for it, so that the state of some charges is unknown.
const HELD: Duration = Duration::from_secs(7);

/// The time limit for finished orders to be archived and deleted, while the operator is killed every few seconds.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(120);

/// Orders are deleted while billing's database is held. In the end, each order is either charged and
/// archived as paid, or not charged.
pub(super) async fn deleted_while_charged(system: &System) -> Result<()> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, ORDERS * 10).await?;
    system.injector.hold(Some(Channel::BillingToDatabase));
    let placed = try_join_all((0..ORDERS).map(|number| customer::place(system, LOGIN, number, 10, "respond-async"))).await?;
    let delete = async |id: i64| system.orders().delete(&format!("order-{id}"), &DeleteParams::default()).await;
    let (early, late) = placed.split_at(ORDERS / 2);
    try_join_all(early.iter().map(|(_, id)| delete(*id))).await?;
    tokio::time::sleep(HELD).await;
    try_join_all(late.iter().map(|(_, id)| delete(*id))).await?;
    system.injector.hold(None);

    wait_all_removed(system, SETTLE_TIMEOUT).await?;
    system.injector.wait_idle(Duration::from_millis(1500), SETTLE_TIMEOUT).await?;
    let archived = list_orders(system).await?;
    let paid = archived.iter().filter(|order| order["status"] == 1).count();
    println!("  of {ORDERS} deleted orders {} are archived, {paid} of them paid", archived.len());
    customer::assert_balance(system, LOGIN, (ORDERS - paid) * 10).await
}

/// The operators and the archive are killed repeatedly while orders are
/// charged, archived and deleted. In the end, each order is in the archive once, as paid.
pub(super) async fn removed_under_kills(system: &System) -> Result<()> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, ORDERS * 10).await?;
    for number in 0..ORDERS {
        let spec = OrderSpec {
            login: LOGIN.to_owned(),
            email: format!("{LOGIN}@example.com"),
            amount: "10".to_owned(),
            ttl_seconds_after_finished: Some(0),
            ..OrderSpec::default()
        };
        system.orders().create(&PostParams::default(), &Order::new(&format!("leaving-{number}"), spec)).await?;
    }
    let kills = async {
        for component in [Component::Operator(0), Component::Archive, Component::Operator(1)].into_iter().cycle() {
            tokio::time::sleep(Duration::from_secs(7)).await;
            if let Err(error) = system.actors().crash(component).await {
                return error;
            }
        }
        unreachable!("the cycle never ends")
    };
    tokio::select! {
        result = wait_all_removed(system, REMOVAL_TIMEOUT) => result?,
        error = kills => return Err(error),
    }
    let archived = list_orders(system).await?;
    ensure_equal("archived orders", archived.len(), ORDERS)?;
    ensure!(archived.iter().all(|order| order["reason"] == "Paid" && order["message_state"] == "Sent"), "{archived:?}");
    customer::assert_balance(system, LOGIN, 0).await
}

async fn wait_all_removed(system: &System, limit: Duration) -> Result<()> {
    wait_for("the deletion of all orders", limit, || async {
        system.orders().list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())
    })
    .await
}

/// The customer's orders, as the public API lists them.
async fn list_orders(system: &System) -> Result<Vec<Value>> {
    let url = format!("{}/orders?login={LOGIN}&limit=100", system.url);
    wait_for("the list of orders", SETTLE_TIMEOUT, || async {
        let response = system.http.get(&url).send().await.ok()?;
        let page: Value = response.error_for_status().ok()?.json().await.ok()?;
        page["items"].as_array().cloned()
    })
    .await
}
