//! Tests of the costs of an order: its database transactions and the time for its customer. `resource` counts its writes
//! to the Kubernetes API, and `broker` its messages.

use anyhow::Result;
use orders_shop::Interaction;
use orders_testbed::{Cluster, Postgres, wait_for, wait_until};
use serde_json::json;
use sqlx::AnyPool;

use crate::shop::{Shop, WAIT_TIMEOUT};

const ORDERS: u64 = 20;

/// The transactions that do not belong to orders: PostgreSQL's automatic ANALYZE uses transactions, too.
const OTHER_TRANSACTIONS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_costs_three_write_transactions_a_share_of_a_capture_and_one_mail() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (billing, notify) = (postgres.database("billing")?, postgres.database("notify")?);
    let ledger_url = billing.clone();
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
    sqlx::any::install_default_drivers();
    let ledger = AnyPool::connect(&ledger_url).await?;
    let captures = "SELECT COUNT(*), COUNT(DISTINCT created_at) FROM transactions WHERE kind = 'capture'";
    let batches = wait_until("all charges to be captured", WAIT_TIMEOUT, || async {
        let counted = sqlx::query_as(captures).fetch_one(&ledger).await;
        let (captured, batches): (i64, i64) = counted.map_err(|error| error.to_string())?;
        if captured as u64 == ORDERS { Ok(batches as u64) } else { Err(format!("{captured} charges are captured")) }
    })
    .await?;
    let transactions = postgres.written_transactions()? - before;
    // The transactions are billing's charge, notify's message, the record that it was sent, and a capture of all charges
    // whose orders were archived together.
    assert!(transactions >= 3 * ORDERS + batches, "{transactions} transactions: not all of them were counted");
    assert!(
        transactions <= 3 * ORDERS + batches + OTHER_TRANSACTIONS,
        "{ORDERS} orders took {transactions} transactions that write, {batches} of them captures"
    );
    assert_eq!(shop.inbox.messages().await?.len() as u64, ORDERS);
    Ok(())
}
