//! Scenarios with many random faults at the same time.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use orders_crds::{Order, Outcome, Refusal};

use super::same;
use crate::{
    customer,
    persist::{SETTLE_LIMIT, persist},
    shop::Shop,
    workload::{mails_of, settled},
};

const LOGIN: &str = "stormy";
const ORDERS: usize = 40;
const ONE_IN: u32 = 6;

/// Places concurrent orders on one account, whose balance suffices for all but ten of them. Half of
/// the orders are cancelled, in any state, while random faults continue.
pub(super) async fn storm(shop: &Shop, seed: u64) -> Result<()> {
    shop.board.begin(Vec::new());
    let balance = (ORDERS - 10) * 10;
    customer::register(shop, LOGIN, balance).await?;

    shop.board.storm(seed, ONE_IN);
    let placed = try_join_all((0..ORDERS).map(|number| customer::place(shop, LOGIN, number, 10, "wait=1"))).await?;
    let cancelled = placed.iter().step_by(2).map(async |(_, id)| {
        let request = shop.http.post(format!("{}/orders/{id}/cancel", shop.url)).header("prefer", "wait=1");
        persist("a cancellation", || request.try_clone(), "").await
    });
    let cancelled: Vec<u16> = try_join_all(cancelled).await?.into_iter().map(|(status, _)| status).collect();
    shop.board.calm();
    let faults = shop.board.fired();
    ensure!(faults > 0, "a storm without a fault");

    let mut orders = Vec::new();
    for (number, (_, id)) in placed.iter().enumerate() {
        // The cancellation of an order that is already refused returns 409, and the order stays refused.
        let is_cancelled = number % 2 == 0 && cancelled[number / 2] != 409;
        orders.push(if is_cancelled { unpaid(shop, *id).await? } else { settled(shop, &format!("order-{id}")).await? });
    }
    shop.board.rest(Duration::from_millis(500), SETTLE_LIMIT).await?;
    println!("  {faults} faults in {} effects", shop.board.seen().len());
    let paid = orders.iter().filter(|order| order.outcome() == Outcome::Paid).count();
    let refused = orders.iter().filter(|order| order.outcome() == Outcome::Refused(Refusal::InsufficientFunds)).count();
    ensure!(refused <= 10, "{refused} were refused, where there was money for all but ten");
    customer::assert_balance(shop, LOGIN, balance - 10 * paid).await?;
    same("orders that came to another end", orders.iter().filter(|order| !is_expected(order)).count(), 0)?;
    for order in &orders {
        ensure!(!mails_of(shop, order).await?.is_empty(), "no mail about {:?}", order.metadata.name);
    }
    Ok(())
}

/// Waits until the cancellation is complete, and returns the order.
async fn unpaid(shop: &Shop, id: i64) -> Result<Order> {
    let what = format!("order-{id} to be cancelled and its customer told");
    crate::workload::settled_if(shop, &format!("order-{id}"), &what, |order| matches!(order.outcome(), Outcome::Refused(_))).await
}

fn is_expected(order: &Order) -> bool {
    let refusals = [Refusal::InsufficientFunds, Refusal::Cancelled, Refusal::Refunded];
    match order.outcome() {
        Outcome::Paid => order.spec.cancel_requested.is_none(),
        Outcome::Refused(refusal) => refusals.contains(&refusal),
        Outcome::Undecided | Outcome::Unknown => false,
    }
}
