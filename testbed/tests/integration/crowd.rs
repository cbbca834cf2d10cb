//! Many orders at once: money is conserved, on both databases.

use anyhow::Result;
use futures::{StreamExt, stream};
use orders_crds::Outcome;
use orders_testbed::{Cluster, Postgres, StackOptions};
use serde_json::json;

use crate::shop::Shop;

/// 200 orders by eight clients on one account that can pay for 150 of them.
async fn two_hundred_orders_at_once(shop: &Shop) -> Result<()> {
    shop.customer("crowd", json!(1500)).await?;
    let statuses: Vec<u16> = stream::iter(0..200)
        .map(|_| async {
            shop.send(shop.order_request("crowd", json!(10)).header("prefer", "wait=60")).await.map(|answer| answer.status)
        })
        .buffer_unordered(8)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_>>()?;
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(200), count(400)), (150, 50), "each of the first 150 is paid, the rest refused");
    assert_eq!(shop.balance("crowd").await?, "0.0");

    let orders = shop.settled().await?;
    assert_eq!(orders.len(), 200);
    assert_eq!(orders.iter().filter(|order| order.outcome() == Outcome::Paid).count(), 150);
    assert_eq!(shop.messages("crowd").await?.len(), 200, "one message an order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_orders_at_once_conserve_money_on_sqlite() -> Result<()> {
    two_hundred_orders_at_once(&Shop::open().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_orders_at_once_conserve_money_on_postgresql() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (billing, notify) = (postgres.database("billing")?, postgres.database("notify")?);
    let databases = |options| StackOptions { billing_database: Some(billing), notify_database: Some(notify), ..options };
    two_hundred_orders_at_once(&Shop::open_with(&Cluster::control_plane().await?, databases).await?).await
}
