//! A private PostgreSQL server for a test, from the system's package.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::network::POD_RANGE;
use crate::packages;
use crate::process::{Process, Signal};
use crate::wait::{WAIT_TIMEOUT, free_port};

/// Options of a [`Postgres`] server.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Whether commits wait for the disk; false by default. Without it, commits are faster and
    /// survive a killed server, but not a crashed machine.
    pub fsync: bool,
    /// The address to listen on; loopback by default. Pods reach the host at
    /// the address of the node's bridge, [`crate::BRIDGE_ADDRESS`].
    pub address: IpAddr,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: false, address: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }
}

/// A PostgreSQL server with one database. When dropped, it stops and its data is deleted.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    programs: PathBuf,
    data: PathBuf,
    log_directory: PathBuf,
    options: PostgresOptions,
    port: u16,
    user: Option<&'static str>,
}

const DATABASE: &str = "orders";
impl Postgres {
    /// Starts a server on loopback that writes its log below `directory`.
    ///
    /// # Errors
    /// If PostgreSQL is missing and cannot be installed, or does not start.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, PostgresOptions::default()).await
    }

    /// Starts a server with these options.
    ///
    /// # Errors
    /// If PostgreSQL is missing and cannot be installed, or does not start.
    pub async fn start_with(directory: &Path, options: PostgresOptions) -> Result<Self> {
        let programs = find_programs().await?;
        let root = rustix::process::geteuid().is_root();
        let port = free_port();
        // PostgreSQL refuses to run as root, and its own user cannot enter a
        // test's private directory.
        let (data, user) = if root {
            let name = format!("orders-postgres-{}-{port}", std::process::id());
            (std::env::temp_dir().join(name), Some("postgres"))
        } else {
            (directory.join("postgres"), None)
        };
        let mut server = Self { process: None, programs, data, log_directory: directory.to_owned(), options, port, user };
        server.initialize().await?;
        server.restart().await?;
        server.create_database()?;
        Ok(server)
    }

    /// The URL of the database, for `DATABASE_URL`.
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://orders@{}:{}/{database}", self.options.address, self.port)
    }

    /// Creates another, empty database in the same server and returns its URL.
    ///
    /// # Errors
    /// If the name is taken or the server does not run.
    pub fn database(&self, name: &str) -> Result<String> {
        self.psql("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")))?;
        Ok(self.url_of(name))
    }

    /// Runs an SQL statement and returns its output, with columns separated by `|`.
    ///
    /// # Errors
    /// If the statement fails.
    pub fn query(&self, sql: &str) -> Result<String> {
        self.psql(DATABASE, sql)
    }

    /// The number of transactions that have written so far, from the transaction ids that the server has assigned.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn written_transactions(&self) -> Result<u64> {
        Ok(self.query("SELECT pg_snapshot_xmax(pg_current_snapshot())")?.trim().parse()?)
    }

    /// The path of a program in the server's package, such as `pgbench`.
    ///
    /// # Errors
    /// If the program is not installed.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let program = self.programs.join(name);
        if !program.is_file() {
            bail!(
                "{} is missing: install PostgreSQL's client programs (Debian: postgresql, postgresql-contrib)",
                program.display()
            );
        }
        Ok(program)
    }

    /// The server's process, for example to suspend it.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("PostgreSQL is stopped")
    }

    /// Stops the server immediately, which breaks all connections. Its data is kept.
    ///
    /// # Errors
    /// If it does not exit.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(Signal::QUIT)?;
            process.wait(WAIT_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Restarts the server on the same port, with the same data.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        let fsync = if self.options.fsync { "on" } else { "off" };
        let mut builder = Process::builder("postgres", self.programs.join("postgres"), &self.log_directory)
            // SIGQUIT also kills the child processes, and releases the shared memory.
            .stop_signal(Signal::QUIT)
            .directory(&self.data)
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port.to_string()]);
        for setting in [
            &format!("listen_addresses={}", self.options.address),
            "unix_socket_directories=",
            "max_connections=200",
            &format!("fsync={fsync}"),
            &format!("full_page_writes={fsync}"),
        ] {
            builder = builder.args(["-c", setting]);
        }
        if let Some(user) = self.user {
            builder = builder.user(user);
        }
        let process = builder.spawn()?;
        process
            .wait_until("PostgreSQL to accept connections", WAIT_TIMEOUT, || async { self.psql("postgres", "SELECT 1").ok() })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Creates the data directory, as a copy of the directory that `initdb` created the first time on this machine.
    async fn initialize(&self) -> Result<()> {
        let cache = Cache::locate()?;
        let template = cache.path("postgres").join(self.version()?);
        let _ = fs::remove_dir_all(&self.data);
        {
            let _lock = cache.lock("postgres").await?;
            if !template.is_dir() {
                self.initdb().await?;
                let unfinished = template.with_extension("unfinished");
                let _ = fs::remove_dir_all(&unfinished);
                fs::create_dir_all(cache.path("postgres"))?;
                self.copy(&self.data, &unfinished)?;
                fs::rename(&unfinished, &template)?;
                let _ = fs::remove_dir_all(&self.data);
            }
        }
        self.copy(&template, &self.data)?;
        self.change_owner()?;
        if !self.options.address.is_loopback() {
            let rule = format!("host all all {POD_RANGE} trust\n");
            let file = self.data.join("pg_hba.conf");
            let rules = fs::read_to_string(&file)? + &rule;
            fs::write(&file, rules)?;
        }
        Ok(())
    }

    /// The server's version, as a file name.
    fn version(&self) -> Result<String> {
        let output = Command::new(self.programs.join("postgres")).arg("--version").output()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(version.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let copied = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status()?;
        if !copied.success() {
            bail!("cannot copy {} to {}", from.display(), to.display());
        }
        Ok(())
    }

    /// Changes the owner of the data directory to the user that runs the server.
    fn change_owner(&self) -> Result<()> {
        let Some(user) = self.user else { return Ok(()) };
        let owned = Command::new("chown").arg("-R").arg(user).arg(&self.data).status()?;
        if !owned.success() {
            bail!("cannot change the owner of {} to {user}", self.data.display());
        }
        Ok(())
    }

    async fn initdb(&self) -> Result<()> {
        fs::create_dir_all(&self.data).with_context(|| format!("cannot create {}", self.data.display()))?;
        let mut builder = Process::builder("initdb", self.programs.join("initdb"), &self.log_directory)
            .directory(&self.data)
            .arg("-D")
            .arg(&self.data)
            .args(["--username=orders", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        self.change_owner()?;
        if let Some(user) = self.user {
            builder = builder.user(user);
        }
        let initdb = builder.spawn()?;
        if !initdb.wait(WAIT_TIMEOUT).await?.success() {
            bail!("initdb failed:\n{}", initdb.output());
        }
        Ok(())
    }

    fn create_database(&self) -> Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE {DATABASE}")).map(drop)
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--dbname"])
            .arg(self.url_of(database))
            .args(["--command", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .output()?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// The directory with the programs of the newest server. On Debian they are not on the
/// `PATH`; each version has its own directory.
async fn find_programs() -> Result<PathBuf> {
    if newest_programs().is_none() {
        packages::ensure(&[packages::POSTGRES]).await?;
    }
    newest_programs().context(
        "PostgreSQL's initdb and postgres are neither below /usr/lib/postgresql nor on the PATH; install PostgreSQL 15 or later",
    )
}

fn newest_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").is_file())
        .max();
    let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).find(|directory| directory.join("initdb").is_file());
    newest.map(|(_, programs)| programs).or_else(on_path)
}
