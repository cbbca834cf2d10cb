//! Tests fairness with more concurrent customers than the operator's concurrency: no order waits much longer than later ones.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use orders_shop::StackOptions;
use orders_testbed::Cluster;
use serde_json::json;

use super::load::{assert_audit_passes, read_number, start};

/// The number of concurrent customers. Each places its next order after the response to the last one.
const CLIENTS: usize = 128;

/// The operator's concurrency, which is so low that most orders wait.
const CONCURRENCY: &str = "32";

/// The total number of orders: more than twenty for each client.
const ORDERS: usize = 3_000;

/// The maximum ratio of the wait of an order to the mean. All orders wait in a full queue, so with a fair queue each order
/// waits about as long as any other, on a machine of any speed.
const LONGEST_OVER_MEAN: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn no_order_waits_much_longer_than_later_orders() -> Result<()> {
    let orders = read_number("ORDERS", ORDERS).min(ORDERS);
    let cluster = Cluster::control_plane().await?;
    let shop =
        start(&cluster, |options| StackOptions { env: vec![("operator", "CONCURRENCY", CONCURRENCY.to_owned())], ..options })
            .await?;
    shop.open_account("many", json!(100_000)).await?;
    let waits = stream::iter(0..orders).map(|_| async {
        let sent = Instant::now();
        let response = shop.send(shop.order_request("many", json!(1)).header("prefer", "wait=60")).await?;
        assert_eq!(response.status, 200, "{response:?}");
        anyhow::Ok(sent.elapsed())
    });
    let waits: Vec<Duration> = waits.buffer_unordered(CLIENTS).try_collect().await?;
    let mean = waits.iter().sum::<Duration>() / u32::try_from(waits.len())?;
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!("longest wait {longest:.2?}, mean {mean:.2?}");
    assert!(longest <= LONGEST_OVER_MEAN * mean, "an order waited {longest:?} where the mean is {mean:?}");
    shop.wait_settled().await?;
    assert_audit_passes(&shop, &cluster, orders).await
}
