//! More customers at once than a small shop has: none is passed over for those who come later.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use orders_shop::StackOptions;
use orders_testbed::Cluster;
use serde_json::json;

use super::load::{audit, number, open};

/// Customers at once, each with the next order when the last is answered.
const CLIENTS: usize = 128;

/// Orders worked on at once: so few that most of them wait.
const CONCURRENCY: &str = "32";

/// Orders in all: each client has its turn more than twenty times.
const ORDERS: usize = 3_000;

/// How much longer than the mean an order may wait. All of them wait behind a full queue, so that one whose turn comes in
/// its order waits about as long as any other, on a machine of any speed.
const LONGEST_OVER_MEAN: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_passed_over_for_those_who_come_later() -> Result<()> {
    let orders = number("ORDERS", ORDERS).min(ORDERS);
    let cluster = Cluster::control_plane().await?;
    let shop =
        open(&cluster, |options| StackOptions { env: vec![("operator", "CONCURRENCY", CONCURRENCY.to_owned())], ..options })
            .await?;
    shop.customer("many", json!(100_000)).await?;
    let waits = stream::iter(0..orders).map(|_| async {
        let asked = Instant::now();
        let answer = shop.send(shop.order_request("many", json!(1)).header("prefer", "wait=60")).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        anyhow::Ok(asked.elapsed())
    });
    let waits: Vec<Duration> = waits.buffer_unordered(CLIENTS).try_collect().await?;
    let mean = waits.iter().sum::<Duration>() / u32::try_from(waits.len())?;
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!("longest wait {longest:.2?}, mean {mean:.2?}");
    assert!(longest <= LONGEST_OVER_MEAN * mean, "an order waited {longest:?} where the mean is {mean:?}");
    shop.settled().await?;
    audit(&shop, &cluster, orders).await
}
