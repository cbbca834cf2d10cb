//! More customers at once than a small shop has: each gets an answer in time, none is passed over for the others.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use orders_testbed::{Cluster, StackOptions};
use serde_json::json;

use crate::load::{audit, number, open};

/// Customers at once, each with the next order when the last is answered.
const CLIENTS: usize = 128;

/// Orders worked on at once: so few that most of them wait.
const CONCURRENCY: &str = "32";

/// For long enough that one that is passed over would be answered 202 after ten seconds.
const ORDERS: usize = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_passed_over_for_those_who_come_later() -> Result<()> {
    let orders = number("ORDERS", ORDERS).min(ORDERS);
    let cluster = Cluster::control_plane().await?;
    let shop =
        open(&cluster, |options| StackOptions { env: vec![("operator", "CONCURRENCY", CONCURRENCY.to_owned())], ..options })
            .await?;
    shop.customer("many", json!(100_000)).await?;
    let statuses = stream::iter(0..orders).map(|_| async { shop.order("many", json!(1)).await.map(|answer| answer.status) });
    let statuses: Vec<u16> = statuses.buffer_unordered(CLIENTS).try_collect().await?;
    let late = statuses.iter().filter(|status| **status != 200).count();
    assert_eq!(late, 0, "so many of {orders} orders were not decided within the usual ten seconds");
    shop.settled().await?;
    audit(&shop, &cluster, orders).await
}
