//! Scenarios in which the broker fails.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::jetstream::{self, stream::DiscardPolicy};
use orders_contracts::topology::{NOTIFY, Stream};
use orders_crds::Outcome;
use orders_service::broker::streams::stream_config;
use orders_testbed::wait_for;

use super::assert::ensure_equal;
use crate::{
    customer,
    retry::SETTLE_TIMEOUT,
    system::System,
    workload::{mails_of, wait_settled},
};

const LOGIN: &str = "listener";

/// The number of orders that are placed concurrently.
const ORDERS: usize = 10;

/// How long the broker is unavailable.
const OUTAGE: Duration = Duration::from_secs(60);

/// How long one service cannot reach the broker.
const PARTITION: Duration = Duration::from_secs(20);

async fn prepare(system: &System) -> Result<()> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, 1000).await
}

async fn place(system: &System, from: usize, to: usize) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    for number in from..to {
        let (status, id) = customer::place(system, LOGIN, number, 10, "respond-async").await?;
        ensure_equal("the status of the response", status, 202)?;
        ids.push(id);
    }
    Ok(ids)
}

/// Asserts that the fault has an effect: while it lasts, not all of these orders are settled.
async fn ensure_delayed(system: &System, ids: &[i64]) -> Result<()> {
    for id in ids {
        let order = system.orders().get(&format!("order-{id}")).await?;
        if !order.status.is_some_and(|status| status.is_notified()) {
            return Ok(());
        }
    }
    bail!("the fault delayed no order")
}

/// Asserts that each order is paid once and its customer notified once.
async fn ensure_all_paid(system: &System, ids: &[i64]) -> Result<()> {
    for id in ids {
        let order = wait_settled(system, &format!("order-{id}")).await?;
        ensure_equal("the outcome", order.outcome(), Outcome::Paid)?;
        ensure_equal("mails of an order", mails_of(system, &order).await?.len(), 1)?;
    }
    customer::assert_balance(system, LOGIN, 1000 - 10 * ids.len()).await
}

/// The broker is killed while orders are processed, is unavailable for a minute, and restarts with its data.
pub(super) async fn down(system: &System) -> Result<()> {
    prepare(system).await?;
    let mut nats = system.nats.as_ref().context("this style has no broker")?.lock().await;
    let mut ids = place(system, 0, ORDERS).await?;
    nats.stop()?;
    ids.extend(place(system, ORDERS, 2 * ORDERS).await?);
    tokio::time::sleep(OUTAGE).await;
    ensure_delayed(system, &ids).await?;
    nats.restart().await?;
    ids.extend(place(system, 2 * ORDERS, 3 * ORDERS).await?);
    ensure_all_paid(system, &ids).await
}

/// The broker is suspended (SIGSTOP): connections stay open, but it does not respond.
pub(super) async fn suspended(system: &System) -> Result<()> {
    prepare(system).await?;
    let nats = system.nats.as_ref().context("this style has no broker")?.lock().await;
    let mut ids = place(system, 0, ORDERS).await?;
    nats.suspend()?;
    ids.extend(place(system, ORDERS, 2 * ORDERS).await?);
    tokio::time::sleep(PARTITION).await;
    ensure_delayed(system, &ids).await?;
    nats.resume()?;
    ensure_all_paid(system, &ids).await
}

/// One service after the other cannot reach the broker for a while. The service does not notice immediately, since
/// messages in both directions are held, not lost.
pub(super) async fn partitioned(system: &System, services: &[crate::effect::Channel]) -> Result<()> {
    prepare(system).await?;
    let mut ids = Vec::new();
    for (round, service) in services.iter().enumerate() {
        system.injector.hold(Some(*service));
        let placed = place(system, round * ORDERS, (round + 1) * ORDERS).await?;
        tokio::time::sleep(PARTITION).await;
        ensure_delayed(system, &placed).await?;
        ids.extend(placed);
        system.injector.hold(None);
    }
    ensure_all_paid(system, &ids).await
}

/// The streams are full and accept no messages. Later they have space again.
pub(super) async fn full_stream(system: &System) -> Result<()> {
    prepare(system).await?;
    let first = place(system, 0, 1).await?;
    ensure_all_paid(system, &first).await?;
    let jetstream = system.jetstream().await?.context("this style has no broker")?;
    let resize = async |max_bytes: i64| -> Result<()> {
        for stream in Stream::CONSUMED {
            let config = jetstream.get_stream(stream.name()).await?.get_info().await?.config;
            let discard = if max_bytes == 1 { DiscardPolicy::New } else { stream_config(stream).discard };
            jetstream.update_stream(jetstream::stream::Config { max_bytes, discard, ..config }).await?;
        }
        Ok(())
    };
    resize(1).await?;
    let mut ids = place(system, 1, ORDERS).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure_delayed(system, &ids).await?;
    resize(stream_config(Stream::Payments).max_bytes).await?;
    ids.extend(first);
    ensure_all_paid(system, &ids).await
}

/// Messages that no service can parse become dead letters, and every service continues.
pub(super) async fn malformed_messages(system: &System) -> Result<()> {
    prepare(system).await?;
    let jetstream = system.jetstream().await?.context("this style has no broker")?;
    let payloads = [
        "",
        "garbage",
        "{}",
        r#"{"specversion":"9","id":"1","source":"/","type":"t","subject":"k","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/","type":"homework.arch.orders.decided.v1","subject":"a\nb","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{"key":"a\nb","login":"a","email":"a@b.cd","amount":"1.00","outcome":"Charged","balance":"0.00"}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/","type":"homework.arch.orders.decided.v1","subject":"k","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{"key":"k","login":"a","email":"a@b.cd","amount":"1.00","outcome":"AccountFrozen","balance":"0.00"}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/","type":"unknown.v7","subject":"k","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{}}"#,
    ];
    // A message that is published while there is no consumer is not kept for a consumer.
    let outcomes = jetstream.get_stream(Stream::Outcomes.name()).await?;
    let find_consumer = || async { outcomes.consumer_info(NOTIFY.service.name()).await.ok().map(drop) };
    wait_for("the consumer of notify", SETTLE_TIMEOUT, find_consumer).await?;
    for payload in payloads {
        jetstream.publish("orders.decided", payload.into()).await?.await?;
    }
    let count_dead_letters = async || {
        jetstream.get_stream(Stream::DeadLetters.name()).await.ok()?.get_info().await.ok().map(|info| info.state.messages)
    };
    wait_for("a dead letter for each message", SETTLE_TIMEOUT, || async {
        (count_dead_letters().await? == payloads.len() as u64).then_some(())
    })
    .await?;
    let ids = place(system, 0, ORDERS).await?;
    ensure_all_paid(system, &ids).await
}
