//! Scenarios in which the broker fails.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::jetstream::{self, stream::DiscardPolicy};
use orders_contracts::topology::{NOTIFY, Stream};
use orders_crds::Outcome;
use orders_service::broker::streams::stream_config;
use orders_testbed::wait_for;

use super::same;
use crate::{
    customer,
    persist::SETTLE_LIMIT,
    shop::Shop,
    workload::{mails_of, settled},
};

const LOGIN: &str = "listener";

/// The number of orders that are placed concurrently.
const ORDERS: usize = 10;

/// How long the broker is unavailable.
const AWAY: Duration = Duration::from_secs(60);

/// How long one service cannot reach the broker.
const PARTED: Duration = Duration::from_secs(20);

async fn open(shop: &Shop) -> Result<()> {
    shop.board.begin(Vec::new());
    customer::register(shop, LOGIN, 1000).await
}

async fn place(shop: &Shop, from: usize, to: usize) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    for number in from..to {
        let (status, id) = customer::place(shop, LOGIN, number, 10, "respond-async").await?;
        same("the answer", status, 202)?;
        ids.push(id);
    }
    Ok(ids)
}

/// Asserts that the fault has an effect: while it lasts, not all of these orders are settled.
async fn held_up(shop: &Shop, ids: &[i64]) -> Result<()> {
    for id in ids {
        let order = shop.orders().get(&format!("order-{id}")).await?;
        if !order.status.is_some_and(|status| status.is_notified()) {
            return Ok(());
        }
    }
    bail!("the fault held nothing up")
}

/// Asserts that each order is paid once and its customer notified once.
async fn all_paid(shop: &Shop, ids: &[i64]) -> Result<()> {
    for id in ids {
        let order = settled(shop, &format!("order-{id}")).await?;
        same("the outcome", order.outcome(), Outcome::Paid)?;
        same("mails of an order", mails_of(shop, &order).await?.len(), 1)?;
    }
    customer::assert_balance(shop, LOGIN, 1000 - 10 * ids.len()).await
}

/// The broker is killed while orders are processed, is unavailable for a minute, and restarts with its data.
pub(super) async fn away(shop: &Shop) -> Result<()> {
    open(shop).await?;
    let mut nats = shop.nats.as_ref().context("this style has no broker")?.lock().await;
    let mut ids = place(shop, 0, ORDERS).await?;
    nats.stop()?;
    ids.extend(place(shop, ORDERS, 2 * ORDERS).await?);
    tokio::time::sleep(AWAY).await;
    held_up(shop, &ids).await?;
    nats.start_again().await?;
    ids.extend(place(shop, 2 * ORDERS, 3 * ORDERS).await?);
    all_paid(shop, &ids).await
}

/// The broker is frozen (SIGSTOP): connections stay open, but it does not respond.
pub(super) async fn stands_still(shop: &Shop) -> Result<()> {
    open(shop).await?;
    let nats = shop.nats.as_ref().context("this style has no broker")?.lock().await;
    let mut ids = place(shop, 0, ORDERS).await?;
    nats.freeze()?;
    ids.extend(place(shop, ORDERS, 2 * ORDERS).await?);
    tokio::time::sleep(PARTED).await;
    held_up(shop, &ids).await?;
    nats.thaw()?;
    all_paid(shop, &ids).await
}

/// One service after the other cannot reach the broker for a while. The service does not notice immediately, since
/// messages in both directions are held, not lost.
pub(super) async fn parted(shop: &Shop, services: &[crate::effect::Channel]) -> Result<()> {
    open(shop).await?;
    let mut ids = Vec::new();
    for (round, service) in services.iter().enumerate() {
        shop.board.hold(Some(*service));
        let placed = place(shop, round * ORDERS, (round + 1) * ORDERS).await?;
        tokio::time::sleep(PARTED).await;
        held_up(shop, &placed).await?;
        ids.extend(placed);
        shop.board.hold(None);
    }
    all_paid(shop, &ids).await
}

/// The streams are full and accept no messages. Later they have space again.
pub(super) async fn full_stream(shop: &Shop) -> Result<()> {
    open(shop).await?;
    let first = place(shop, 0, 1).await?;
    all_paid(shop, &first).await?;
    let jetstream = shop.jetstream().await?.context("this style has no broker")?;
    let resize = async |max_bytes: i64| -> Result<()> {
        for stream in Stream::READ {
            let config = jetstream.get_stream(stream.name()).await?.get_info().await?.config;
            let discard = if max_bytes == 1 { DiscardPolicy::New } else { stream_config(stream).discard };
            jetstream.update_stream(jetstream::stream::Config { max_bytes, discard, ..config }).await?;
        }
        Ok(())
    };
    resize(1).await?;
    let mut ids = place(shop, 1, ORDERS).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    held_up(shop, &ids).await?;
    resize(stream_config(Stream::Payments).max_bytes).await?;
    ids.extend(first);
    all_paid(shop, &ids).await
}

/// Messages that no service can parse become dead letters, and every service continues.
pub(super) async fn garbage(shop: &Shop) -> Result<()> {
    open(shop).await?;
    let jetstream = shop.jetstream().await?.context("this style has no broker")?;
    let all_bad = [
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
    let listens = || async { outcomes.consumer_info(NOTIFY.service.name()).await.ok().map(drop) };
    wait_for("notify to listen", SETTLE_LIMIT, listens).await?;
    for bad in all_bad {
        jetstream.publish("orders.decided", bad.into()).await?.await?;
    }
    let dead = async || {
        jetstream.get_stream(Stream::DeadLetters.name()).await.ok()?.get_info().await.ok().map(|info| info.state.messages)
    };
    wait_for("each to be a dead letter", SETTLE_LIMIT, || async { (dead().await? == all_bad.len() as u64).then_some(()) })
        .await?;
    let ids = place(shop, 0, ORDERS).await?;
    all_paid(shop, &ids).await
}
