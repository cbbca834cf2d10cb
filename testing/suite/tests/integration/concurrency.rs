//! Tests that many concurrent orders conserve money.

use anyhow::Result;
use futures::{StreamExt, stream};
use orders_crds::Outcome;
use serde_json::json;

use crate::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_orders_of_eight_clients_on_one_account_conserve_money() -> Result<()> {
    let shop = Shop::start().await?;
    // The balance suffices for 150 orders.
    shop.open_account("crowd", json!(1500)).await?;
    let statuses: Vec<u16> = stream::iter(0..200)
        .map(|_| async {
            shop.send(shop.order_request("crowd", json!(10)).header("prefer", "wait=60")).await.map(|response| response.status)
        })
        .buffer_unordered(8)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_>>()?;
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(200), count(400)), (150, 50), "the first 150 are paid, the others refused");
    assert_eq!(shop.balance("crowd").await?, "0.0");

    let orders = shop.wait_settled().await?;
    assert_eq!(orders.len(), 200);
    assert_eq!(orders.iter().filter(|order| order.outcome() == Outcome::Paid).count(), 150);
    assert_eq!(shop.messages("crowd").await?.len(), 200, "one message for each order");
    Ok(())
}
