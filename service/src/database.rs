//! One database per service: SQLite or PostgreSQL, by the scheme of its URL.

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use serde::Serialize;
use sqlx::{
    AnyPool, ConnectOptions, Connection,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::Migrator,
};

/// How long a request waits for a connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Beyond this a connection that was not used is asked whether it still lives.
const IDLE: Duration = Duration::from_secs(1);

/// Which database is behind a [`Database`]. Only the start of a writing
/// transaction and the migrations differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file, one writer at a time.
    Sqlite,
    /// A server.
    Postgres,
}

/// A pool of connections, and what kind they are.
#[derive(Clone, Debug)]
pub struct Database {
    /// The connections.
    pub pool: AnyPool,
    /// What they lead to.
    pub kind: Kind,
}

/// The migrations of a service, one set a kind: key columns and the like are
/// spelled differently.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    /// For SQLite.
    pub sqlite: &'static Migrator,
    /// For PostgreSQL.
    pub postgres: &'static Migrator,
}

impl Database {
    /// Opens the database, creating a SQLite file that is not there yet, and
    /// brings its schema up to date. Migrations take a lock, so that replicas
    /// may start at once.
    ///
    /// # Errors
    /// If the URL is of another scheme, the database cannot be reached, or a
    /// migration fails. The message never shows the URL, which may hold a password.
    pub async fn open(url: &str, max_connections: u32, migrations: Migrations) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let kind = kind_of(url)?;
        let url = match kind {
            Kind::Sqlite => with_creation(url),
            Kind::Postgres => url.to_owned(),
        };
        let options = AnyConnectOptions::from_str(&url)
            .context("DATABASE_URL cannot be read")?
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        let pool = AnyPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // Asking each time whether a connection still lives would be a round trip more for each request. One
            // that was used just now does, or the request is told so and made again, as with any that breaks.
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    // SQLite undoes a transaction by itself when the disk is full; sqlx then tries to undo it again,
                    // fails, and counts the connection as in a transaction for ever.
                    let is_usable = !connection.is_in_transaction();
                    Ok(is_usable && (metadata.idle_for < IDLE || connection.ping().await.is_ok()))
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    for pragma in settings(kind) {
                        sqlx::query(*pragma).execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await
            .context("cannot open the database that DATABASE_URL names")?;
        let migrator = match kind {
            Kind::Sqlite => migrations.sqlite,
            Kind::Postgres => migrations.postgres,
        };
        migrator.run(&pool).await.context("cannot migrate the database")?;
        Ok(Database { pool, kind })
    }

    /// Begins a transaction that writes. SQLite takes its write lock here:
    /// taking it later, on the first write, could fail half-way.
    ///
    /// # Errors
    /// If no connection is free in time, or the database does not answer.
    pub async fn begin_write(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, sqlx::Error> {
        match self.kind {
            Kind::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres => self.pool.begin().await,
        }
    }

    /// Whether the database answers; for readiness. A pool that is all in use is
    /// busy, not broken: taking the replica out would turn load into an outage.
    ///
    /// # Errors
    /// In words, if it does not.
    pub async fn ping(&self) -> Result<(), String> {
        let connection = match self.pool.try_acquire() {
            Some(connection) => Ok(connection),
            None if self.pool.size() >= self.pool.options().get_max_connections() => return Ok(()),
            None => self.pool.acquire().await,
        };
        let ping = async { sqlx::query("SELECT 1").execute(&mut *connection?).await };
        ping.await.map(drop).map_err(|error| format!("database: {error}"))
    }
}

/// A value as a statement's parameter of type JSON.
///
/// # Errors
/// If it has no form in JSON.
pub fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn kind_of(url: &str) -> anyhow::Result<Kind> {
    match url.split(':').next() {
        Some("sqlite") => Ok(Kind::Sqlite),
        Some("postgres" | "postgresql") => Ok(Kind::Postgres),
        _ => anyhow::bail!("DATABASE_URL must start with sqlite:// or postgres://"),
    }
}

fn with_creation(url: &str) -> String {
    if url.contains("mode=") {
        return url.to_owned();
    }
    format!("{url}{}mode=rwc", if url.contains('?') { '&' } else { '?' })
}

/// Set on every new connection.
const fn settings(kind: Kind) -> &'static [&'static str] {
    match kind {
        // FULL: what was committed survives a power cut; WAL alone syncs only at checkpoints.
        Kind::Sqlite => {
            &["PRAGMA busy_timeout = 5000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON"]
        }
        // Rows are asked for by their keys and nearly always in memory. With the default, which is for disks that turn, a
        // statement that is first planned while its table is small looks through all of it, and goes on so as it grows.
        Kind::Postgres => &["SET statement_timeout = '5s'", "SET lock_timeout = '3s'", "SET random_page_cost = 1.1"],
    }
}

/// Whether this error means that the database cannot be used now, rather than
/// that the statement was wrong: worth a 503 and another try.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error::*;
    match error {
        Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        Database(error) => error.code().is_some_and(|code| {
            // PostgreSQL classes: 08 connection, 40 rollback, 53 resources, 55 lock, 57 operator; SQLite: busy, locked, full, I/O.
            let class = code.get(..2).unwrap_or_default();
            matches!(class, "08" | "40" | "53" | "55" | "57" | "58") && code.len() == 5
                || matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6 | 10 | 13))
        }),
        _ => false,
    }
}
