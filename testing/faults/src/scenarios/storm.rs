//! Scenarios with many random faults at the same time.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use orders_crds::{Order, Outcome, Refusal};

use super::assert::ensure_equal;
use crate::{
    customer,
    retry::{SETTLE_TIMEOUT, retry_until_definite},
    system::System,
    workload::{mails_of, wait_settled},
};

const LOGIN: &str = "stormy";
const ORDERS: usize = 40;
const ONE_IN: u32 = 6;

/// Places concurrent orders on one account, whose balance suffices for all but ten of them. Half of
/// the orders are cancelled, in any state, while random faults continue.
pub(super) async fn storm(system: &System, seed: u64) -> Result<()> {
    system.injector.begin(Vec::new());
    let balance = (ORDERS - 10) * 10;
    customer::register(system, LOGIN, balance).await?;

    system.injector.inject_at_random(seed, ONE_IN);
    let placed = try_join_all((0..ORDERS).map(|number| customer::place(system, LOGIN, number, 10, "wait=1"))).await?;
    let cancelled = placed.iter().step_by(2).map(async |(_, id)| {
        let request = system.http.post(format!("{}/orders/{id}/cancel", system.url)).header("prefer", "wait=1");
        retry_until_definite("a cancellation", || request.try_clone(), "").await
    });
    let cancelled: Vec<u16> = try_join_all(cancelled).await?.into_iter().map(|(status, _)| status).collect();
    system.injector.stop_faults();
    let faults = system.injector.injected();
    ensure!(faults > 0, "no fault was injected");

    let mut orders = Vec::new();
    for (number, (_, id)) in placed.iter().enumerate() {
        // The cancellation of an order that is already refused returns 409, and the order stays refused.
        let is_cancelled = number % 2 == 0 && cancelled[number / 2] != 409;
        orders.push(if is_cancelled {
            wait_cancelled(system, *id).await?
        } else {
            wait_settled(system, &format!("order-{id}")).await?
        });
    }
    system.injector.wait_idle(Duration::from_millis(500), SETTLE_TIMEOUT).await?;
    println!("  {faults} faults in {} effects", system.injector.effects().len());
    let paid = orders.iter().filter(|order| order.outcome() == Outcome::Paid).count();
    let refused = orders.iter().filter(|order| order.outcome() == Outcome::Refused(Refusal::InsufficientFunds)).count();
    ensure!(refused <= 10, "{refused} orders were refused, but the balance sufficed for all except ten");
    customer::assert_balance(system, LOGIN, balance - 10 * paid).await?;
    ensure_equal("orders with an unexpected outcome", orders.iter().filter(|order| !is_expected(order)).count(), 0)?;
    for order in &orders {
        ensure!(!mails_of(system, order).await?.is_empty(), "no mail about {:?}", order.metadata.name);
    }
    Ok(())
}

/// Waits until the cancellation is complete, and returns the order.
async fn wait_cancelled(system: &System, id: i64) -> Result<Order> {
    let what = format!("order-{id} to be cancelled and its customer notified");
    crate::workload::wait_settled_if(system, &format!("order-{id}"), &what, |order| {
        matches!(order.outcome(), Outcome::Refused(_))
    })
    .await
}

fn is_expected(order: &Order) -> bool {
    let refusals = [Refusal::InsufficientFunds, Refusal::Cancelled, Refusal::Refunded];
    match order.outcome() {
        Outcome::Paid => order.spec.cancel_requested.is_none(),
        Outcome::Refused(refusal) => refusals.contains(&refusal),
        Outcome::Undecided | Outcome::Unknown => false,
    }
}
