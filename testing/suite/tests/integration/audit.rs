//! Tests of `orders-audit`: it succeeds after normal work of the services, and detects manual changes in
//! their databases.

use anyhow::{Context, Result};
use orders_shop::{AuditResult, Database};
use orders_testbed::Cluster;
use serde_json::{Value, json};
use sqlx::{AnyPool, AssertSqlSafe};

use crate::shop::{Shop, WAIT_TIMEOUT, database, name};

pub async fn run_audit(shop: &Shop, arguments: &[&str]) -> Result<AuditResult> {
    let cluster = Cluster::control_plane().await?;
    shop.stack.audit(&cluster).run(arguments, WAIT_TIMEOUT).await
}

/// Changes a service's database as the service itself never would.
async fn tamper(shop: &Shop, service: &str, statements: &[&str]) -> Result<()> {
    sqlx::any::install_default_drivers();
    let configured = if service == "billing" { &shop.options.billing_database } else { &shop.options.notify_database };
    let file = || format!("sqlite://{}", shop.stack.directory.join(format!("{service}.db")).display());
    let url = configured.clone().unwrap_or_else(file);
    let pool = AnyPool::connect(&url).await?;
    for statement in statements {
        let result = sqlx::query(AssertSqlSafe(*statement)).execute(&pool).await.with_context(|| (*statement).to_owned())?;
        assert!(
            // A captured charge has no authorization any more.
            ["DROP", "ALTER", "DELETE FROM authorizations"].iter().any(|start| statement.starts_with(start))
                || result.rows_affected() > 0,
            "{statement} changed nothing"
        );
    }
    pool.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_passes_after_normal_work_and_reports_tampering() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("olga", json!(1000)).await?;
    let paid = shop.place_order("olga", json!(100)).await?.id();
    let refused = shop.place_order("olga", json!(5000)).await?.id();
    shop.place_order("nobody", json!(5)).await?.assert_problem(404);
    shop.wait_settled().await?;

    let passed = run_audit(&shop, &[]).await?;
    assert_eq!(passed.exit_code, Some(0), "{}", passed.output);
    assert!(
        passed.output.contains("3 orders (0 not decided yet)") && passed.output.contains("No violations."),
        "{}",
        passed.output
    );
    let report: Value = serde_json::from_str(&run_audit(&shop, &["--output", "json"]).await?.output)?;
    assert_eq!((&report["holds"], &report["transactions"]), (&json!(true), &json!(4)));

    let uid = shop.orders().get(&name(paid)).await?.metadata.uid.unwrap_or_default();
    tamper(&shop, "billing", &["UPDATE accounts SET balance = balance + 1"]).await?;
    let found = run_audit(&shop, &[]).await?;
    assert_eq!(found.exit_code, Some(1));
    assert!(found.output.contains("account olga: the balance is 900.01, its postings sum to 900.00"), "{}", found.output);
    tamper(&shop, "billing", &["UPDATE accounts SET balance = balance - 1"]).await?;
    assert_eq!(run_audit(&shop, &[]).await?.exit_code, Some(0), "it passes after the repair");

    // A charge is deleted from the ledger, and a message from the log.
    let of_charge = format!("DELETE FROM postings WHERE transaction_id IN (SELECT id FROM transactions WHERE key = '{uid}')");
    let authorization = format!("DELETE FROM authorizations WHERE charge_key = '{uid}'");
    let charge = format!("DELETE FROM transactions WHERE key = '{uid}'");
    let disable_triggers = match database() {
        Database::Sqlite => ["DROP TRIGGER postings_no_delete", "DROP TRIGGER transactions_no_delete"],
        Database::Postgres => ["ALTER TABLE postings DISABLE TRIGGER USER", "ALTER TABLE transactions DISABLE TRIGGER USER"],
    };
    tamper(
        &shop,
        "billing",
        &[disable_triggers[0], disable_triggers[1], &authorization, &of_charge, &charge, "UPDATE accounts SET balance = 100000"],
    )
    .await?;
    tamper(&shop, "notify", &["DELETE FROM messages WHERE text LIKE 'Недостаточно%'"]).await?;
    let report: Value = serde_json::from_str(&run_audit(&shop, &["--output", "json"]).await?.output)?;
    let violations_of = |rule: &str| {
        let violations = report["violations"].as_array().into_iter().flatten();
        violations.filter(|violation| violation["rule"] == rule).map(|violation| violation["order"].clone()).collect::<Vec<_>>()
    };
    let order = |id| json!(format!("{}/{}", shop.stack.namespace, name(id)));
    assert_eq!(violations_of("PaidOrderHasOneCharge"), [order(paid)], "{report}");
    assert_eq!(violations_of("OrderHasOneMessage"), [order(refused)], "{report}");

    // An audit that cannot read all services must not succeed.
    shop.stack.billing.kill()?;
    let failed = run_audit(&shop, &[]).await?;
    assert_eq!(failed.exit_code, Some(2), "{}", failed.output);
    assert!(failed.output.contains("the audit could not be completed"), "{}", failed.output);
    shop.stack.billing.restart().await?;
    Ok(())
}
