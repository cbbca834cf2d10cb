//! A PgBouncer in front of a PostgreSQL server, from the system's package.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::packages;
use crate::postgres::Postgres;
use crate::process::Process;
use crate::wait::{WAIT_TIMEOUT, free_port};

/// A pooler of connections to a server's database.
#[derive(Debug)]
pub struct PgBouncer {
    _process: Process,
    configuration: PathBuf,
    url: String,
}

impl PgBouncer {
    /// Starts a pooler in this mode (`session` or `transaction`), which writes its log below `directory`.
    ///
    /// # Errors
    /// If PgBouncer is missing and cannot be installed, or does not start.
    pub async fn start(postgres: &Postgres, directory: &Path, mode: &str) -> Result<Self> {
        packages::ensure(&[packages::PGBOUNCER]).await?;
        let server = postgres.url();
        let (user, address) = server.trim_start_matches("postgres://").split_once('@').context("a URL with a user")?;
        let (address, database) = address.split_once('/').context("a URL with a database")?;
        let (host, port) = address.split_once(':').context("a URL with a port")?;
        let listen = free_port();
        // PgBouncer refuses to run as root, and another user cannot read a test's private directory.
        let configuration = std::env::temp_dir().join(format!("orders-pgbouncer-{listen}.ini"));
        let text = format!(
            "[databases]\n{database} = host={host} port={port} dbname={database} user={user}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\nignore_startup_parameters = extra_float_digits\n"
        );
        fs::write(&configuration, text)?;
        let mut builder = Process::builder(format!("pgbouncer-{mode}"), "/usr/sbin/pgbouncer", directory).arg(&configuration);
        if rustix::process::geteuid().is_root() {
            builder = builder.user("postgres");
        }
        let process = builder.spawn()?;
        let listening = || async { TcpStream::connect(("127.0.0.1", listen)).await.ok().map(drop) };
        process.wait_until("PgBouncer to listen", WAIT_TIMEOUT, listening).await?;
        Ok(Self { _process: process, configuration, url: format!("postgres://{user}@127.0.0.1:{listen}/{database}") })
    }

    /// The URL of the database through the pooler, for `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.configuration);
    }
}
