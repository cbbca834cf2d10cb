//! The cache directory, which outlives a checkout. It holds built programs, images, and the state
//! of running clusters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait_for;

/// The longest time that another testbed may hold a lock: that of a first build on a slow machine.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The cache directory, `$ORDERS_CACHE` or `~/.cache/orders`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Locates the cache directory, and creates it if it does not exist.
    ///
    /// # Errors
    /// If neither `ORDERS_CACHE` nor `HOME` is set, or the directory cannot be created.
    pub fn locate() -> Result<Self> {
        let root = match std::env::var_os("ORDERS_CACHE") {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => PathBuf::from(
                std::env::var_os("HOME").context("set HOME, or ORDERS_CACHE to a directory for the testbed's cache")?,
            )
            .join(".cache/orders"),
        };
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        // Processes with other working directories use paths of sockets and pid files, so they must be absolute.
        let root = root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))?;
        Ok(Self { root })
    }

    /// Returns a path below the cache directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The directory with the state of a running cluster or server, for example `control-plane`.
    pub fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    /// The directory that `testbed env` adds to `PATH`.
    pub fn current_bin(&self) -> PathBuf {
        self.root.join("bin/current")
    }

    /// Acquires the lock with this name. If another testbed holds it, prints a message and waits.
    /// The lock is released when the returned file is dropped.
    ///
    /// # Errors
    /// If the lock file cannot be opened, or the other testbed holds the lock for too long.
    pub async fn lock(&self, name: &str) -> Result<File> {
        let directory = self.root.join("lock");
        fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        eprintln!("another testbed holds the lock `{name}`; waiting until it is released");
        let try_lock = || async { file.try_lock().is_ok().then_some(()) };
        wait_for(&format!("the lock `{name}`, which another testbed holds"), LOCK_TIMEOUT, try_lock).await?;
        Ok(file)
    }
}
