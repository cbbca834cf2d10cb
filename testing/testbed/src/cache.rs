//! Where the testbed keeps what outlives a checkout: built binaries, images
//! and the state of what is running.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait_for;

/// A first build on a slow machine.
const LONGEST_WORK: Duration = Duration::from_secs(60 * 60);

/// The cache directory, `$ORDERS_CACHE` or `~/.cache/orders`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the cache directory and makes it if needed.
    ///
    /// # Errors
    /// When neither `ORDERS_CACHE` nor `HOME` is set, or the directory cannot be made.
    pub fn locate() -> Result<Self> {
        let root = match std::env::var_os("ORDERS_CACHE") {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => PathBuf::from(
                std::env::var_os("HOME").context("set HOME, or ORDERS_CACHE to a directory for the testbed's cache")?,
            )
            .join(".cache/orders"),
        };
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        // Sockets and pid files are handed to processes with other working directories.
        let root = root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))?;
        Ok(Self { root })
    }

    /// A path below the cache directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The state of something that runs, for example `control-plane`.
    pub fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    /// The directory that `testbed env` puts on the `PATH`.
    pub fn current_bin(&self) -> PathBuf {
        self.root.join("bin/current")
    }

    /// Takes the lock of this name, and says so when it has to wait for another
    /// testbed. It is released when the returned file is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be opened, or the other one takes too long.
    pub async fn lock(&self, name: &str) -> Result<File> {
        let directory = self.root.join("lock");
        fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        eprintln!("another testbed is busy with {name}; waiting for it");
        let locked = || async { file.try_lock().is_ok().then_some(()) };
        wait_for(&format!("another testbed, busy with {name}"), LONGEST_WORK, locked).await?;
        Ok(file)
    }
}
