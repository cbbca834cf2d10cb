//! The workload `Removal`: an order that is archived and deleted, and requested afterwards.

use anyhow::{Context, Result};
use kube::ResourceExt;
use orders_testbed::wait_for;
use serde_json::Value;

use super::{Ending, look, texts};
use crate::persist::SETTLE_LIMIT;
use crate::{customer, shop::Shop};

/// Places one order with an idempotency key. After the order is deleted, places it again with the same key, reads it and
/// lists it.
pub(super) async fn run(shop: &Shop, login: &str) -> Result<Ending> {
    customer::register(shop, login, 100).await?;
    let place = || customer::place(shop, login, 0, 30, "");
    let (status, id) = place().await?;
    let name = format!("order-{id}");
    let order = wait_for(&format!("an answer about {name}"), SETTLE_LIMIT, || async {
        Some(shop.orders().get_opt(&name).await.ok()?.context("it is gone already"))
    })
    .await??;
    gone(shop, &name).await?;

    let (repeated, _) = place().await?;
    let made_anew = wait_for("an answer about the repeat", SETTLE_LIMIT, || async {
        Some(shop.orders().get_opt(&name).await.ok()?.is_some())
    })
    .await?;
    let listed = look(shop, &format!("/orders?login={login}")).await?;
    let shown = shown(shop, id).await?;
    let account = look(shop, &format!("/billing/account/{login}")).await?;
    let messages = look(shop, &format!("/notify/log/{login}")).await?;
    Ok(Ending {
        orders: vec![
            format!("made anew when its key came again: {made_anew}"),
            format!("listed {:?}", listed["items"].as_array().map(|items| items.iter().map(describe).collect::<Vec<_>>())),
            shown,
        ],
        balance: account["balance"].to_string(),
        messages: texts(&messages).map(|(text, sent)| (text.replace(login, "CUSTOMER"), sent)).collect(),
        uids: vec![order.uid().context("a stored order has a UID")?],
        answers: vec![status, repeated],
        ..Ending::default()
    })
}

async fn gone(shop: &Shop, name: &str) -> Result<()> {
    wait_for(&format!("{name} to be removed"), SETTLE_LIMIT, || async {
        shop.orders().get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await
}

/// The order as the public API returns it, or that it does not exist.
async fn shown(shop: &Shop, id: i64) -> Result<String> {
    let url = format!("{}/orders/{id}", shop.url);
    wait_for("an answer about a removed order", SETTLE_LIMIT, || async {
        let response = shop.http.get(&url).send().await.ok()?;
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
