//! A real NATS server with JetStream for tests, with the users and permissions of the chart's server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::gobuild::{self, Set};
use crate::process::{Process, Signal};
use crate::wait::{WAIT_TIMEOUT, free_port};

/// The chart's own configuration file, so that tests and the cluster have the same permissions.
const CONFIGURATION: &str = include_str!("../../../helm/orders/files/nats.conf");

/// The users that the configuration names.
const USERS: [&str; 4] = ["operator", "billing", "notify", "admin"];

/// Options of a [`Nats`] server.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// The maximum size of all streams together, such as `64KB`; 256MB by default.
    pub max_store: Option<String>,
}

/// The URL of a broker and the passwords of its users.
#[derive(Clone, Debug)]
pub struct BrokerAccess {
    /// NATS_URL.
    pub url: String,
    /// NATS_PASSWORD of the operator.
    pub operator: String,
    /// NATS_PASSWORD of billing.
    pub billing: String,
    /// NATS_PASSWORD of notify.
    pub notify: String,
}

/// A NATS server on loopback, which starts without streams. When dropped, it stops and its data is
/// deleted.
#[derive(Debug)]
pub struct Nats {
    process: Option<Process>,
    program: PathBuf,
    /// The directory of the configuration and the streams.
    directory: PathBuf,
    log_directory: PathBuf,
    port: u16,
    monitor_port: u16,
    max_store: String,
    /// The passwords of [`USERS`], in that order.
    passwords: [String; USERS.len()],
}

impl Nats {
    /// Starts a server that writes its log, its configuration and its data below
    /// `directory`.
    ///
    /// # Errors
    /// If it cannot be built or does not start.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, NatsOptions::default()).await
    }

    /// Starts a server with these options.
    ///
    /// # Errors
    /// If it cannot be built or does not start.
    pub async fn start_with(directory: &Path, options: NatsOptions) -> Result<Self> {
        let programs = gobuild::ensure(&Cache::locate()?, Set::ControlPlane).await?;
        let mut server = Self {
            process: None,
            program: programs.path("nats-server"),
            directory: directory.join("nats"),
            log_directory: directory.to_owned(),
            port: free_port(),
            monitor_port: free_port(),
            max_store: options.max_store.unwrap_or_else(|| "256MB".to_owned()),
            passwords: [new_password()?, new_password()?, new_password()?, new_password()?],
        };
        let _ = fs::remove_dir_all(&server.directory);
        fs::create_dir_all(&server.directory).with_context(|| format!("cannot create {}", server.directory.display()))?;
        fs::write(server.configuration(), CONFIGURATION)?;
        server.restart().await?;
        Ok(server)
    }

    /// The URL for clients, for `NATS_URL`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The URL of the server's monitoring endpoint.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// The password of `operator`, `billing`, `notify` or `admin`. The user `admin` has all permissions.
    ///
    /// # Panics
    /// If there is no such user.
    pub fn password(&self, user: &str) -> &str {
        let index = USERS.iter().position(|name| *name == user);
        &self.passwords[index.unwrap_or_else(|| panic!("the broker has no user {user}; its users are {}", USERS.join(", ")))]
    }

    /// The URL and the passwords that the services need to connect.
    pub fn access(&self) -> BrokerAccess {
        let password = |user| self.password(user).to_owned();
        BrokerAccess { url: self.url(), operator: password("operator"), billing: password("billing"), notify: password("notify") }
    }

    /// The server's process.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the NATS server is stopped")
    }

    /// Kills the server, which breaks all connections. Its data is kept.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Restarts the server on the same port, with the same data and
    /// passwords, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let mut builder = Process::builder("nats", &self.program, &self.log_directory)
            .arg("-c")
            .arg(self.configuration())
            .env("NATS_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("NATS_MONITOR", format!("127.0.0.1:{}", self.monitor_port))
            .env("NATS_STORE_DIR", self.directory.join("data"))
            .env("NATS_MAX_STORE", &self.max_store);
        for (user, password) in USERS.iter().zip(&self.passwords) {
            builder = builder.env(format!("NATS_{}_PASSWORD", user.to_uppercase()), password);
        }
        let process = builder.spawn()?;
        process.wait_http(&format!("{}/healthz", self.monitor_url()), WAIT_TIMEOUT).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Suspends the server: connections stay open, but it does not respond.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn suspend(&self) -> Result<()> {
        self.process()?.signal(Signal::STOP)
    }

    /// Resumes a suspended server.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn resume(&self) -> Result<()> {
        self.process()?.signal(Signal::CONT)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("nats.conf")
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A random password that begins with a letter. The server parses the values of
/// variables like its configuration file, and could parse other passwords as numbers.
fn new_password() -> Result<String> {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot create a password")?;
    Ok(format!("p{}", random.trim().replace('-', "")))
}
