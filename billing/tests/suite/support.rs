//! Helpers that the tests of the ledger share.

use std::{future::Future, time::Instant};

use anyhow::Result;
use orders_billing::{
    error::LedgerError,
    ledger::{Kind, MIGRATIONS, Movement, Refund},
};
use orders_crds::Money;
use orders_service::database::{self, Database, Timeouts};
use orders_testbed::{Postgres, WAIT_TIMEOUT};

/// Runs a test on SQLite and on PostgreSQL, each with a database of its own.
pub async fn on_both_databases<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Database) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let directory = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", directory.path().join("billing.db").display());
    test(Database::open_with_timeouts(&sqlite, 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?).await?;
    let postgres = Postgres::start(directory.path()).await?;
    test(Database::open_with_timeouts(&postgres.url(), 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?).await
}

pub fn charge<'a>(key: &'a str, login: &'a str, minor: i64) -> Movement<'a> {
    Movement { kind: Kind::Charge, key, login, amount: Money::from_minor(minor), charge_key: None, authorization: None }
}

pub fn refill<'a>(key: &'a str, login: &'a str, minor: i64) -> Movement<'a> {
    Movement { kind: Kind::Refill, key, login, amount: Money::from_minor(minor), charge_key: None, authorization: None }
}

pub fn refund<'a>(key: &'a str, charge_key: &'a str, login: &'a str, minor: i64) -> Refund<'a> {
    Refund { key, charge_key, login, amount: Money::from_minor(minor) }
}

/// Retries a call while the database is unavailable, as every caller does: with the same key.
pub async fn retry_while_unavailable<T, F: Future<Output = Result<T, LedgerError>>>(
    call: impl Fn() -> F,
) -> Result<T, LedgerError> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(LedgerError::Database(error)) if database::is_unavailable(&error) && start.elapsed() < WAIT_TIMEOUT => {
                eprintln!("retrying: {error}");
            }
            result => return result,
        }
    }
}

/// Asserts the rules of double-entry bookkeeping, with queries of the tables.
pub async fn assert_books_balance(database: &Database) -> Result<()> {
    let sum: i64 =
        sqlx::query_scalar("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings").fetch_one(&database.pool).await?;
    assert_eq!(sum, 0, "all postings sum to zero");
    let unbalanced: Vec<(String, i64)> = sqlx::query_as(
        "SELECT login, balance FROM accounts WHERE balance <> (
             SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings WHERE account = 'customer:' || login)",
    )
    .fetch_all(&database.pool)
    .await?;
    assert_eq!(unbalanced, [], "every balance is the sum of its postings");
    Ok(())
}
