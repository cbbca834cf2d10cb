//! Tests of `orders-audit`: it succeeds after normal work of the services, and detects manual changes in
//! their databases.

use anyhow::{Context, Result};
use orders_shop::{Audited, Database};
use orders_testbed::Cluster;
use serde_json::{Value, json};
use sqlx::{AnyPool, AssertSqlSafe};

use crate::shop::{SOON, Shop, database, name};

pub async fn audit(shop: &Shop, arguments: &[&str]) -> Result<Audited> {
    let cluster = Cluster::control_plane().await?;
    shop.stack.audit(&cluster).run(arguments, SOON).await
}

/// Changes a service's database as the service itself never would.
async fn tamper(shop: &Shop, service: &str, statements: &[&str]) -> Result<()> {
    sqlx::any::install_default_drivers();
    let chosen = if service == "billing" { &shop.options.billing_database } else { &shop.options.notify_database };
    let file = || format!("sqlite://{}", shop.stack.directory.join(format!("{service}.db")).display());
    let url = chosen.clone().unwrap_or_else(file);
    let pool = AnyPool::connect(&url).await?;
    for statement in statements {
        let done = sqlx::query(AssertSqlSafe(*statement)).execute(&pool).await.with_context(|| (*statement).to_owned())?;
        assert!(
            statement.starts_with("DROP") || statement.starts_with("ALTER") || done.rows_affected() > 0,
            "{statement} changed nothing"
        );
    }
    pool.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_passes_on_a_sound_shop_and_names_what_was_tampered_with() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.customer("olga", json!(1000)).await?;
    let paid = shop.order("olga", json!(100)).await?.id();
    let refused = shop.order("olga", json!(5000)).await?.id();
    shop.order("nobody", json!(5)).await?.assert_problem(404);
    shop.settled().await?;

    let sound = audit(&shop, &[]).await?;
    assert_eq!(sound.exit_code, Some(0), "{}", sound.output);
    assert!(
        sound.output.contains("3 orders (0 not decided yet)") && sound.output.contains("Everything holds."),
        "{}",
        sound.output
    );
    let report: Value = serde_json::from_str(&audit(&shop, &["--output", "json"]).await?.output)?;
    assert_eq!((&report["holds"], &report["transactions"]), (&json!(true), &json!(4)));

    let uid = shop.orders().get(&name(paid)).await?.metadata.uid.unwrap_or_default();
    tamper(&shop, "billing", &["UPDATE accounts SET balance = balance + 1"]).await?;
    let found = audit(&shop, &[]).await?;
    assert_eq!(found.exit_code, Some(1));
    assert!(found.output.contains("account olga: the balance is 900.01, its postings sum to 900.00"), "{}", found.output);
    tamper(&shop, "billing", &["UPDATE accounts SET balance = balance - 1"]).await?;
    assert_eq!(audit(&shop, &[]).await?.exit_code, Some(0), "and passes once it is put right");

    // A charge is deleted from the ledger, and a message from the log.
    let of_charge = format!("DELETE FROM postings WHERE transaction_id = (SELECT id FROM transactions WHERE key = '{uid}')");
    let charge = format!("DELETE FROM transactions WHERE key = '{uid}'");
    let unguarded = match database() {
        Database::Sqlite => ["DROP TRIGGER postings_no_delete", "DROP TRIGGER transactions_no_delete"],
        Database::Postgres => ["ALTER TABLE postings DISABLE TRIGGER USER", "ALTER TABLE transactions DISABLE TRIGGER USER"],
    };
    tamper(&shop, "billing", &[unguarded[0], unguarded[1], &of_charge, &charge, "UPDATE accounts SET balance = 100000"]).await?;
    tamper(&shop, "notify", &["DELETE FROM messages WHERE text LIKE 'Недостаточно%'"]).await?;
    let report: Value = serde_json::from_str(&audit(&shop, &["--output", "json"]).await?.output)?;
    let named = |rule: &str| {
        let violations = report["violations"].as_array().into_iter().flatten();
        violations.filter(|violation| violation["rule"] == rule).map(|violation| violation["order"].clone()).collect::<Vec<_>>()
    };
    let order = |id| json!(format!("{}/{}", shop.stack.namespace, name(id)));
    assert_eq!(named("PaidOrderHasOneCharge"), [order(paid)], "{report}");
    assert_eq!(named("OrderHasOneMessage"), [order(refused)], "{report}");

    // An audit that cannot read all services must not succeed.
    shop.stack.billing.kill()?;
    let failed = audit(&shop, &[]).await?;
    assert_eq!(failed.exit_code, Some(2), "{}", failed.output);
    assert!(failed.output.contains("the audit could not be made"), "{}", failed.output);
    shop.stack.billing.start_again().await?;
    Ok(())
}
