//! Explains why a database cannot be opened, and checks that connections do not share a session.

use std::borrow::Cow;

use sqlx::{AnyConnection, Connection, Row, any::AnyConnectOptions};

/// Explains why no connection can be opened.
pub(super) fn explain_connection_error(error: sqlx::Error) -> anyhow::Error {
    let explanation = match &error {
        sqlx::Error::Database(refused) if refused.message().contains("unsupported startup parameter") => {
            "PgBouncer refuses a parameter of the connection: set ignore_startup_parameters = extra_float_digits in its \
             configuration, or connect to PostgreSQL directly"
        }
        sqlx::Error::Database(refused) if is_file_unusable(refused.code()) => {
            "cannot write the SQLite file that DATABASE_URL names, or files beside it: its directory must exist, and the user of \
             this process must own it. If a volume ignores fsGroup, as NFS and hostPath do, change its owner, or run the pod as \
             its owner with podSecurityContext.runAsUser"
        }
        _ => "cannot open the database that DATABASE_URL names",
    };
    anyhow::Error::from(error).context(explanation)
}

/// The error of [`check_session`] if connections share a session.
const SHARED_SESSION: &str = "DATABASE_URL leads to a connection pooler in transaction mode, in which clients share sessions. \
     The locks of migrations, the limits of requests and prepared statements need a session of their own: set pool_mode = \
     session for this database, or connect to PostgreSQL directly";

/// Checks that each connection to PostgreSQL has a session of its own. A pooler in transaction mode runs the
/// transaction of one connection in the session that served another one before.
///
/// # Errors
/// If no connection can be opened, or if two connections share a session.
pub(super) async fn check_session(options: &AnyConnectOptions) -> anyhow::Result<()> {
    let sessions = async {
        let mut first = AnyConnection::connect_with(options).await?;
        let mut second = AnyConnection::connect_with(options).await?;
        let one = session(&mut first).await?;
        sqlx::raw_sql("BEGIN").execute(&mut second).await?;
        let two = session(&mut second).await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut second).await?;
        let (_, _) = (first.close().await, second.close().await);
        Ok((one, two))
    };
    match sessions.await.map_err(explain_connection_error)? {
        (one, two) if one == two => anyhow::bail!(SHARED_SESSION),
        _ => Ok(()),
    }
}

/// The number of the process that serves a session. A simple query: a prepared statement would already fail where sessions
/// are shared.
async fn session(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    sqlx::raw_sql("SELECT CAST(pg_backend_pid() AS BIGINT)").fetch_one(connection).await?.try_get(0)
}

/// SQLite's codes for a file that cannot be opened or written: CANTOPEN, READONLY and PERM, with their extensions.
fn is_file_unusable(code: Option<Cow<'_, str>>) -> bool {
    code.is_some_and(|code| code.len() < 5 && matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(14 | 8 | 3)))
}
