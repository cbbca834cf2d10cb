//! Access to a service's own database: SQLite or PostgreSQL, depending on the scheme of its URL.

mod connect;

use std::{
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use connect::{check_session, explain_connection_error};
use serde::Serialize;
use sqlx::{
    AnyConnection, AnyPool, ConnectOptions, Connection,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{MigrateError, Migrator},
};

/// A connection that was idle for longer than this is tested before it is used.
const MAX_UNTESTED_IDLE: Duration = Duration::from_secs(1);

/// PostgreSQL's error code of a write to a read-only server.
const READ_ONLY: &str = "25006";

/// When a PostgreSQL server last replied that it is read-only, which a primary is after a failover. The
/// connections that were opened before are closed instead of used: only a new connection finds the new
/// primary.
static READ_ONLY_SINCE: Mutex<Option<Instant>> = Mutex::new(None);

/// The kind of a [`Database`]. The kinds differ only in the migrations, in the settings of a
/// connection and in how a write transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file, one writer at a time.
    Sqlite,
    /// A database server.
    Postgres,
}

/// A pool of connections to a database, and the kind of the database.
#[derive(Clone, Debug)]
pub struct Database {
    /// The pool of connections.
    pub pool: AnyPool,
    /// The kind of the database.
    pub kind: Kind,
}

/// The migrations of a service: one set for each kind of database, because the SQL differs, for
/// example for key columns.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    /// For SQLite.
    pub sqlite: &'static Migrator,
    /// For PostgreSQL.
    pub postgres: &'static Migrator,
}

/// How long a request waits for the database before it is answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a free connection.
    pub acquire: Duration,
    /// For a lock, on PostgreSQL.
    pub lock: Duration,
    /// For a statement, including its locks. On SQLite: for the write lock, of which there is one.
    pub statement: Duration,
}

impl Timeouts {
    /// The same limit for each wait.
    pub const fn uniform(limit: Duration) -> Self {
        Timeouts { acquire: limit, lock: limit, statement: limit }
    }

    /// The limits of migrations. A migration may take longer than any request. PostgreSQL takes zero as
    /// unlimited; another replica that migrates an SQLite file is waited for.
    const fn for_migrations(kind: Kind) -> Self {
        Timeouts::uniform(match kind {
            Kind::Postgres => Duration::ZERO,
            Kind::Sqlite => Duration::from_secs(600),
        })
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timeouts { acquire: seconds(3), lock: seconds(3), statement: seconds(5) }
    }
}

impl Database {
    /// Opens the database with the default [`Timeouts`] and migrates its schema. Creates a SQLite file if it does not exist.
    /// Migrations take a lock, so that replicas may start at the same time.
    ///
    /// # Errors
    /// If the URL has another scheme, the database cannot be reached, or a migration fails. The
    /// message never shows the URL, which may contain a password.
    pub async fn open(url: &str, max_connections: u32, migrations: Migrations) -> anyhow::Result<Self> {
        Self::open_with_timeouts(url, max_connections, migrations, Timeouts::default()).await
    }

    /// Opens the database like [`Database::open`], with other timeouts: a test whose subject is not
    /// a timeout must not depend on the speed of the machine.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn open_with_timeouts(
        url: &str,
        max_connections: u32,
        migrations: Migrations,
        timeouts: Timeouts,
    ) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let kind = parse_kind(url)?;
        let url = match kind {
            Kind::Sqlite => create_if_missing(url),
            Kind::Postgres => url.to_owned(),
        };
        let options = AnyConnectOptions::from_str(&url)
            .context("DATABASE_URL cannot be parsed; in a user or a password, write # / ? % @ : and spaces percent-encoded, such as %23 for #")?
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        if kind == Kind::Postgres {
            check_session(&options).await?;
        }
        let pool = AnyPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(timeouts.acquire)
            // A test before each use would add a round trip to each request. A recently used
            // connection works, or the request fails and the client repeats it, as with any
            // connection that breaks.
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    // When the disk is full, SQLite rolls a transaction back by itself. sqlx then
                    // tries to roll it back again, fails, and treats the connection as in a
                    // transaction forever.
                    let is_usable = !connection.is_in_transaction() && !is_of_old_primary(metadata.age);
                    Ok(is_usable && (metadata.idle_for < MAX_UNTESTED_IDLE || connection.ping().await.is_ok()))
                })
            })
            .after_connect(move |connection, _| Box::pin(apply_settings(connection, kind, timeouts)))
            .connect_with(options)
            .await
            .map_err(explain_connection_error)?;
        let migrator = match kind {
            Kind::Sqlite => migrations.sqlite,
            Kind::Postgres => migrations.postgres,
        };
        let mut connection = pool.acquire().await.map_err(explain_connection_error)?;
        apply_settings(&mut connection, kind, Timeouts::for_migrations(kind)).await?;
        migrator.run(&mut *connection).await.map_err(explain_migration_error)?;
        apply_settings(&mut connection, kind, timeouts).await?;
        drop(connection);
        Ok(Database { pool, kind })
    }

    /// Begins a write transaction. SQLite acquires its write lock here: to acquire it on the first
    /// write could fail in the middle of the transaction.
    ///
    /// # Errors
    /// If no connection is free in time, or the database does not respond.
    pub async fn begin_write(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, sqlx::Error> {
        match self.kind {
            Kind::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres => self.pool.begin().await,
        }
    }

    /// Checks that the database responds and accepts writes, for readiness. If all connections of the pool are in use,
    /// the pool is busy, not broken: a replica that is not ready would turn load into an outage.
    ///
    /// # Errors
    /// A description of the failure, if the database does not respond.
    pub async fn ping(&self) -> Result<(), String> {
        let connection = match self.pool.try_acquire() {
            Some(connection) => Ok(connection),
            None if self.pool.size() >= self.pool.options().get_max_connections() => return Ok(()),
            None => self.pool.acquire().await,
        };
        let unavailable = |error: sqlx::Error| format!("database: {error}");
        let mut connection = connection.map_err(unavailable)?;
        if !self.is_read_only(&mut connection).await.map_err(unavailable)? {
            return Ok(());
        }
        distrust_connections();
        let _ = connection.close().await;
        let mut connection = self.pool.acquire().await.map_err(unavailable)?;
        match self.is_read_only(&mut connection).await.map_err(unavailable)? {
            false => Ok(()),
            true => Err("database: the server is read-only; it is no primary any more".to_owned()),
        }
    }

    async fn is_read_only(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        match self.kind {
            Kind::Postgres => {
                sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'on'").fetch_one(connection).await
            }
            Kind::Sqlite => sqlx::query("SELECT 1").execute(connection).await.map(|_| false),
        }
    }
}

fn distrust_connections() {
    *READ_ONLY_SINCE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Whether a connection of this age was opened before a server replied that it is read-only.
fn is_of_old_primary(age: Duration) -> bool {
    let since = *READ_ONLY_SINCE.lock().unwrap_or_else(PoisonError::into_inner);
    since.is_some_and(|since| age > since.elapsed())
}

fn explain_migration_error(error: MigrateError) -> anyhow::Error {
    let explanation = match &error {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => {
            "DATABASE_URL names the database of another service, or a newer version has migrated it. Billing, notify and \
             the archive need a database each; a version that is rolled back needs the backup"
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if is_permission_denied(error) => {
            "the user of DATABASE_URL may not create tables. Make the user the owner of the database, or GRANT CREATE ON \
             SCHEMA public TO the user (since PostgreSQL 15, only the owner may create tables there)"
        }
        _ => "cannot migrate the database",
    };
    anyhow::Error::from(error).context(explanation)
}

fn is_permission_denied(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "42501")
}

/// Serializes a value as a parameter of type JSON.
///
/// # Errors
/// If the value cannot be serialized to JSON.
pub fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn parse_kind(url: &str) -> anyhow::Result<Kind> {
    match url.split(':').next() {
        Some("sqlite") => Ok(Kind::Sqlite),
        Some("postgres" | "postgresql") => Ok(Kind::Postgres),
        _ => anyhow::bail!("DATABASE_URL must start with sqlite:// or postgres://"),
    }
}

fn create_if_missing(url: &str) -> String {
    if url.contains("mode=") {
        return url.to_owned();
    }
    format!("{url}{}mode=rwc", if url.contains('?') { '&' } else { '?' })
}

async fn apply_settings(connection: &mut AnyConnection, kind: Kind, timeouts: Timeouts) -> Result<(), sqlx::Error> {
    for setting in settings(kind, timeouts) {
        sqlx::query(sqlx::AssertSqlSafe(setting)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The settings of each new connection.
fn settings(kind: Kind, timeouts: Timeouts) -> Vec<String> {
    let (lock, statement) = (timeouts.lock.as_millis(), timeouts.statement.as_millis());
    match kind {
        // FULL: a committed transaction survives a power failure. WAL alone syncs only at
        // checkpoints.
        Kind::Sqlite => vec![
            format!("PRAGMA busy_timeout = {statement}"),
            "PRAGMA journal_mode = WAL".to_owned(),
            "PRAGMA synchronous = FULL".to_owned(),
            "PRAGMA foreign_keys = ON".to_owned(),
        ],
        // Statements look rows up by key, and the rows are nearly always in memory. The default
        // page cost is for spinning disks: a statement that is first planned while its table is
        // small scans the whole table, and continues to do so as the table grows.
        Kind::Postgres => vec![
            format!("SET statement_timeout = {statement}"),
            format!("SET lock_timeout = {lock}"),
            "SET random_page_cost = 1.1".to_owned(),
        ],
    }
}

/// Whether the transaction certainly had no effect: there was no connection for it, or the database
/// replied that it rolls the transaction back.
pub fn had_no_effect(error: &sqlx::Error) -> bool {
    use sqlx::Error::*;
    match error {
        PoolTimedOut | PoolClosed => true,
        Database(error) => error.code().is_some_and(|code| {
            // PostgreSQL classes: 40 rollback, 53 resources, 55 lock, and the error 25006 read-only. SQLite:
            // busy, locked, full.
            code == READ_ONLY
                || (code.len() == 5 && matches!(code.get(..2), Some("40" | "53" | "55")))
                || matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6 | 13))
        }),
        _ => false,
    }
}

/// Whether this error means that the database is unavailable now, and not that the statement is
/// wrong. The client may then try again.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error::*;
    match error {
        Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        Database(error) if error.code().is_some_and(|code| code == READ_ONLY) => {
            distrust_connections();
            true
        }
        Database(error) => error.code().is_some_and(|code| {
            // PostgreSQL classes: 08 connection, 40 rollback, 53 resources, 55 lock, 57 operator,
            // 58 system. SQLite: busy, locked, I/O, full.
            let class = code.get(..2).unwrap_or_default();
            matches!(class, "08" | "40" | "53" | "55" | "57" | "58") && code.len() == 5
                || matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6 | 10 | 13))
        }),
        _ => false,
    }
}
