//! The workload `Removal`: an order that is archived and deleted, and requested afterwards.

use anyhow::{Context, Result};
use kube::ResourceExt;
use orders_testbed::wait_for;
use serde_json::Value;

use super::final_state::{FinalState, get_json, texts};
use crate::retry::SETTLE_TIMEOUT;
use crate::{customer, system::System};

/// Places one order with an idempotency key. After the order is deleted, places it again with the same key, reads it and
/// lists it.
pub(super) async fn run(system: &System, login: &str) -> Result<FinalState> {
    customer::register(system, login, 100).await?;
    let place = || customer::place(system, login, 0, 30, "");
    let (status, id) = place().await?;
    let name = format!("order-{id}");
    let order = wait_for(&format!("a response about {name}"), SETTLE_TIMEOUT, || async {
        Some(system.orders().get_opt(&name).await.ok()?.context("the order is already removed"))
    })
    .await??;
    wait_removed(system, &name).await?;

    let (repeated, _) = place().await?;
    let is_recreated = wait_for("a response about the repeated request", SETTLE_TIMEOUT, || async {
        Some(system.orders().get_opt(&name).await.ok()?.is_some())
    })
    .await?;
    let listed = get_json(system, &format!("/orders?login={login}")).await?;
    let shown = get_order(system, id).await?;
    let account = get_json(system, &format!("/billing/account/{login}")).await?;
    let messages = get_json(system, &format!("/notify/log/{login}")).await?;
    Ok(FinalState {
        orders: vec![
            format!("recreated by a repeat with its key: {is_recreated}"),
            format!("listed {:?}", listed["items"].as_array().map(|items| items.iter().map(describe).collect::<Vec<_>>())),
            shown,
        ],
        balance: account["balance"].to_string(),
        messages: texts(&messages).map(|(text, sent)| (text.replace(login, "CUSTOMER"), sent)).collect(),
        uids: vec![order.uid().context("a stored order has a UID")?],
        statuses: vec![status, repeated],
        ..FinalState::default()
    })
}

async fn wait_removed(system: &System, name: &str) -> Result<()> {
    wait_for(&format!("{name} to be removed"), SETTLE_TIMEOUT, || async {
        system.orders().get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await
}

/// The order as the public API returns it, or that it does not exist.
async fn get_order(system: &System, id: i64) -> Result<String> {
    let url = format!("{}/orders/{id}", system.url);
    wait_for("a response about a removed order", SETTLE_TIMEOUT, || async {
        let response = system.http.get(&url).send().await.ok()?;
        match response.status().as_u16() {
            200 => Some(describe(&response.json().await.ok()?)),
            404 => Some("unknown".to_owned()),
            _ => None,
        }
    })
    .await
}

/// Describes the state of an order in one line.
fn describe(order: &Value) -> String {
    // The number of attempts differs between runs.
    let history = order["history"].as_array().into_iter().flatten();
    let charges = history.filter(|entry| entry["action"] == "Charge" && entry["reason"] == "Paid").count();
    format!(
        "amount {}: {}, balance {}, attempt {}, mail {}, charged {charges} times",
        order["amount"], order["reason"], order["balance"], order["attempt"], order["message_state"]
    )
}
