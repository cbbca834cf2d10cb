//! Databases that are set up as users set them up, poolers, and a failover.

use anyhow::{Context, Result};
use orders_billing::ledger::{Ledger, MIGRATIONS, Outcome};
use orders_crds::Money;
use orders_service::database::{self, Database, Timeouts};
use orders_testbed::{PgBouncer, Postgres, WAIT_TIMEOUT, wait_for};

use crate::support::refill;

async fn open(url: &str) -> Result<Database> {
    Database::open_with_timeouts(url, 5, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_server_that_is_read_only_since_a_failover_are_replaced() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let database = open(&postgres.url()).await?;
    let ledger = Ledger::new(database.clone());
    ledger.register("a", None).await?;
    ledger.record(&refill("before", "a", 100)).await?;
    database.ping().await.map_err(anyhow::Error::msg)?;

    // The sessions so far become read-only, as those to an old primary do. New sessions are not.
    postgres.query("ALTER ROLE orders SET default_transaction_read_only = off")?;
    postgres.query("ALTER SYSTEM SET default_transaction_read_only = on")?;
    postgres.query("SELECT pg_reload_conf()")?;
    let refilled = wait_for("the refill", WAIT_TIMEOUT, || async {
        match ledger.record(&refill("after", "a", 100)).await {
            Ok(recorded) => Some(recorded),
            Err(orders_billing::error::LedgerError::Database(error)) => {
                assert!(database::is_unavailable(&error) && database::had_no_effect(&error), "{error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    })
    .await?;
    assert_eq!((refilled.outcome, refilled.balance), (Outcome::Done, Some(Money::from_minor(200))));
    database.ping().await.map_err(anyhow::Error::msg)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_read_only_server_is_unavailable_and_not_an_internal_error() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let database = open(&postgres.url()).await?;
    let ledger = Ledger::new(database.clone());
    ledger.register("a", None).await?;
    postgres.query("ALTER SYSTEM SET default_transaction_read_only = on")?;
    postgres.query("SELECT pg_reload_conf()")?;
    // The sessions learn of the setting after a moment. Until then, each refill needs a key of its own.
    let error = wait_for("a write to be refused", WAIT_TIMEOUT, || async {
        ledger.record(&refill(&jiff::Timestamp::now().to_string(), "a", 1)).await.err()
    })
    .await?;
    let problem = orders_service::Problem::from(error);
    assert_eq!((problem.status, problem.retry_after_seconds), (503, Some(1)), "{problem:?}");
    let unready = database.ping().await.err().context("the service is ready")?;
    assert!(unready.contains("read-only"), "{unready}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_says_what_to_do() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let failure =
        async |url: &str| -> Result<String> { Ok(format!("{:#}", open(url).await.err().context("the database was opened")?)) };
    let with_password = |password: &str| format!("postgres://orders:{password}@127.0.0.1/orders");
    for password in ["p#ss", "p/ss", "p?ss"] {
        let error = failure(&with_password(password)).await?;
        assert!(error.contains("percent-encoded") && !error.contains(password), "{password}: {error}");
    }

    // The database of another service.
    let other = postgres.database("notify")?;
    postgres_migrated_by_another_service(&other).await?;
    let error = failure(&other).await?;
    assert!(error.contains("the database of another service"), "{error}");

    // A user who may not create tables.
    let name = postgres.database("restricted")?;
    postgres.query("CREATE ROLE clerk LOGIN")?;
    let error = failure(&name.replace("orders@", "clerk@")).await?;
    assert!(error.contains("GRANT CREATE ON SCHEMA public"), "{error}");
    Ok(())
}

/// Applies a migration that is not billing's, as notify or the archive does.
async fn postgres_migrated_by_another_service(url: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("0001_messages.sql"), "CREATE TABLE messages (id BIGINT PRIMARY KEY)")?;
    let migrator = sqlx::migrate::Migrator::new(directory.path()).await?;
    let migrator: &'static sqlx::migrate::Migrator = Box::leak(Box::new(migrator));
    let migrations = database::Migrations { sqlite: migrator, postgres: migrator };
    Database::open_with_timeouts(url, 1, migrations, Timeouts::uniform(WAIT_TIMEOUT)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_may_take_longer_than_a_request() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let migrations = tempfile::tempdir()?;
    std::fs::write(migrations.path().join("0001_slow.sql"), "SELECT pg_sleep(2)")?;
    let migrator: &'static sqlx::migrate::Migrator = Box::leak(Box::new(sqlx::migrate::Migrator::new(migrations.path()).await?));
    let migrations = database::Migrations { sqlite: migrator, postgres: migrator };
    let second = std::time::Duration::from_secs(1);
    let timeouts = Timeouts { acquire: WAIT_TIMEOUT, lock: second, statement: second };
    let database = Database::open_with_timeouts(&postgres.url(), 1, migrations, timeouts).await?;
    let slow = sqlx::query("SELECT pg_sleep(2)").execute(&database.pool).await;
    assert!(slow.is_err_and(|error| database::is_unavailable(&error)), "a request has its limit again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_works_in_session_mode_and_is_refused_by_name_in_transaction_mode() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let pooler = PgBouncer::start(&postgres, directory.path(), "transaction").await?;
    let error = format!("{:#}", open(pooler.url()).await.err().context("the database was opened")?);
    assert!(error.contains("set pool_mode = session"), "{error}");

    let pooler = PgBouncer::start(&postgres, directory.path(), "session").await?;
    let ledger = Ledger::new(open(pooler.url()).await?);
    ledger.register("a", None).await?;
    let calls = (0..20).map(|number| {
        let (ledger, key) = (ledger.clone(), format!("k{number}"));
        async move { ledger.record(&refill(&key, "a", 1)).await }
    });
    let recorded = futures::future::try_join_all(calls).await?;
    assert!(recorded.iter().all(|recorded| recorded.outcome == Outcome::Done), "{recorded:?}");
    assert_eq!(ledger.balance("a").await?, Money::from_minor(20));
    Ok(())
}

#[tokio::test]
async fn an_sqlite_file_that_cannot_be_written_says_what_to_do() -> Result<()> {
    for url in ["sqlite:///proc/billing.db", "sqlite:///nowhere/billing.db"] {
        let error = format!("{:#}", open(url).await.err().context("the database was opened")?);
        assert!(error.contains("ignores fsGroup"), "{error}");
    }
    Ok(())
}
