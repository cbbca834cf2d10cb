//! Tests of the costs of an order: its database transactions and the time for its customer. `resource` counts its writes
//! to the Kubernetes API, and `broker` its messages.

use anyhow::Result;
use orders_shop::Interaction;
use orders_testbed::{Cluster, Postgres, wait_for};
use serde_json::json;

use crate::shop::{Shop, WAIT_TIMEOUT};

const ORDERS: u64 = 20;

/// The transactions that do not belong to orders: PostgreSQL's automatic ANALYZE uses transactions, too.
const OTHER_TRANSACTIONS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_costs_three_write_transactions_and_one_mail() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (billing, notify) = (postgres.database("billing")?, postgres.database("notify")?);
    let shop = Shop::start_with_style(Interaction::Http, &Cluster::control_plane().await?, |mut options| {
        (options.billing_database, options.notify_database) = (Some(billing), Some(notify));
        options
    })
    .await?;
    shop.open_account("cosima", json!(1000)).await?;
    let before = postgres.written_transactions()?;
    for _ in 0..ORDERS {
        let response = shop.place_order("cosima", json!(1)).await?;
        assert_eq!(response.status, 200, "{response:?}");
    }
    // A message that took longer than its order's response must still be recorded as sent.
    wait_for("all mails", WAIT_TIMEOUT, || async { (shop.inbox.messages().await.ok()?.len() as u64 >= ORDERS).then_some(()) })
        .await?;
    wait_for("all messages to be sent", WAIT_TIMEOUT, || async {
        let messages = shop.messages("cosima").await.ok()?;
        messages.iter().all(|(_, sent)| *sent).then_some(())
    })
    .await?;
    let transactions = postgres.written_transactions()? - before;
    // The transactions are billing's charge, notify's message, and the record that it was sent.
    assert!(transactions >= 3 * ORDERS, "{transactions} transactions: not all of them were counted");
    assert!(transactions <= 3 * ORDERS + OTHER_TRANSACTIONS, "{ORDERS} orders took {transactions} transactions that write");
    assert_eq!(shop.inbox.messages().await?.len() as u64, ORDERS);
    Ok(())
}
