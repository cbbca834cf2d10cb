//! Scenarios about charges whose order is deleted while no operator works.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use orders_crds::order::FINALIZER;
use orders_testbed::{Signal, wait_for};
use serde_json::{Value, json};

use crate::{
    customer,
    effect::{Channel, Component},
    retry::SETTLE_TIMEOUT,
    system::{OPERATORS, System},
};

const LOGIN: &str = "absent";

/// The customer's balance before the order, and the amount of the order, in whole units.
const BALANCE: usize = 100;
const AMOUNT: usize = 30;

/// An order is paid, its customer is told, and it is deleted before the archive has it. It stays paid.
pub(super) async fn deleted_unarchived(system: &System) -> Result<()> {
    let name = place_while_billing_is_held(system).await?;
    signal(system, Component::Archive, Signal::STOP).await?;
    system.injector.hold(None);
    wait_for("an attempt to archive the order", SETTLE_TIMEOUT, || async {
        system.injector.effects().iter().any(|effect| effect.channel == Channel::OperatorToArchive).then_some(())
    })
    .await?;
    delete_while_the_operators_are_away(system, &name, &[Component::Archive]).await?;
    let shown = wait_archived(system, &name).await?;
    ensure!(shown["status"] == 1, "the customer was told that the order is paid: {shown}");
    assert_settled(system, &name, &shown).await
}

/// An order is charged, and deleted before its customer is told and its status is written.
pub(super) async fn deleted_untold(system: &System) -> Result<()> {
    let name = place_while_billing_is_held(system).await?;
    signal(system, Component::Notify, Signal::STOP).await?;
    system.injector.hold(None);
    wait_charged(system).await?;
    delete_while_the_operators_are_away(system, &name, &[Component::Notify]).await?;
    let shown = wait_archived(system, &name).await?;
    assert_settled(system, &name, &shown).await
}

/// An order with the finalizer is charged. Its finalizer is removed by hand, and it is deleted, before
/// its status is written.
pub(super) async fn finalizer_removed(system: &System) -> Result<()> {
    let name = place_while_billing_is_held(system).await?;
    wait_for("the finalizer", SETTLE_TIMEOUT, || async {
        let order = system.orders().get(&name).await.ok()?;
        order.metadata.finalizers?.iter().any(|finalizer| finalizer == FINALIZER).then_some(())
    })
    .await?;
    signal(system, Component::Notify, Signal::STOP).await?;
    system.injector.hold(None);
    wait_charged(system).await?;
    for number in 0..OPERATORS {
        signal(system, Component::Operator(number), Signal::STOP).await?;
    }
    let without_finalizer = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    system.orders().patch(&name, &PatchParams::default(), &without_finalizer).await?;
    delete_while_the_operators_are_away(system, &name, &[Component::Notify]).await?;
    let shown = wait_archived(system, &name).await?;
    assert_settled(system, &name, &shown).await
}

/// Places an order whose charge waits for billing's database. Returns the order's name.
async fn place_while_billing_is_held(system: &System) -> Result<String> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, BALANCE).await?;
    system.injector.hold(Some(Channel::BillingToDatabase));
    Ok(format!("order-{}", place(system).await?.1))
}

/// Places the order. A repeat has the same key.
async fn place(system: &System) -> Result<(u16, i64)> {
    customer::place(system, LOGIN, 0, AMOUNT, "respond-async").await
}

async fn wait_charged(system: &System) -> Result<()> {
    wait_for("the charge", SETTLE_TIMEOUT, || async { customer::assert_balance(system, LOGIN, BALANCE - AMOUNT).await.ok() })
        .await
}

async fn signal(system: &System, component: Component, signal: Signal) -> Result<()> {
    system.actors().service(component).lock().await.process.signal(signal)
}

/// Suspends the operators, deletes the order, and restarts these components and the operators. Nothing
/// that they were doing is continued. Until the operators return, the charge is still authorized, which
/// the audit allows.
async fn delete_while_the_operators_are_away(system: &System, name: &str, crashed: &[Component]) -> Result<()> {
    for number in 0..OPERATORS {
        signal(system, Component::Operator(number), Signal::STOP).await?;
    }
    system.orders().delete(name, &DeleteParams::default()).await?;
    for component in crashed {
        system.actors().crash(*component).await?;
    }
    system.audit().await.context("while the operators are away")?;
    for number in 0..OPERATORS {
        system.actors().crash(Component::Operator(number)).await?;
    }
    Ok(())
}

/// Waits until the public API shows the deleted order from the archive.
async fn wait_archived(system: &System, name: &str) -> Result<Value> {
    let url = format!("{}/orders/{}", system.url, name.trim_start_matches("order-"));
    wait_for("the order in the archive", SETTLE_TIMEOUT, || async {
        let response = system.http.get(&url).send().await.ok()?;
        let shown: Value = response.error_for_status().ok()?.json().await.ok()?;
        (shown["status"] != 2).then_some(shown)
    })
    .await
}

/// Asserts that the balance and the messages agree with the outcome that the archive has, and that a
/// repeat under the key gets this outcome.
async fn assert_settled(system: &System, name: &str, shown: &Value) -> Result<()> {
    let (balance, text) = match shown["status"].as_i64() {
        Some(1) => (BALANCE - AMOUNT, "Заказ успешно оформлен"),
        Some(0) => (BALANCE, "Заказ отменён"),
        _ => bail!("the order is not decided: {shown}"),
    };
    println!("  the order is {}", shown["reason"]);
    wait_for(&format!("a balance of {balance}"), SETTLE_TIMEOUT, || async {
        customer::assert_balance(system, LOGIN, balance).await.ok()
    })
    .await?;
    let (_, id) = place(system).await?;
    ensure!(format!("order-{id}") == name, "a repeat under the key is order-{id} instead of {name}");
    system.injector.wait_idle(Duration::from_millis(1500), SETTLE_TIMEOUT).await?;
    ensure!(system.orders().get_opt(name).await?.is_none(), "a repeat under the key made another order");
    let messages = system.http.get(format!("{}/notify/log/{LOGIN}", system.url)).send().await?.json::<Value>().await?;
    let texts: Vec<&str> = messages.as_array().context("messages")?.iter().filter_map(|m| m["text"].as_str()).collect();
    ensure!(texts == [text], "the customer was told {texts:?}");
    customer::assert_balance(system, LOGIN, balance).await
}
