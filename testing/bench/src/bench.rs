//! A run of the benchmark: its options, its directory and its results.

use std::path::{Path, PathBuf};

use anyhow::Result;
use orders_shop::Database;

use crate::options::Options;
use crate::progress::say;
use crate::report::Report;
use crate::site::{Site, Wanted};

/// A run of the benchmark.
#[derive(Debug)]
pub struct Bench {
    /// The options of the run.
    pub options: Options,
    /// The results so far.
    pub report: Report,
    /// The directory for logs and data of the processes that the run starts.
    directory: PathBuf,
}

impl Bench {
    /// Creates a run that writes below this directory.
    pub fn new(options: Options, directory: &Path) -> Self {
        Bench { options, report: Report::default(), directory: directory.to_owned() }
    }

    /// Starts a new site for one measurement.
    ///
    /// # Errors
    /// As [`Site::open`].
    pub async fn open(&self, name: &str, database: Database, wanted: Wanted) -> Result<Site> {
        say(&format!("{name}: starting"));
        Site::open(&self.directory.join(name), database, &self.options, wanted).await
    }

    /// Stops a site and deletes its files: the etcd of a round alone has hundreds of megabytes.
    /// The logs of a failed site are kept.
    pub fn close(&self, name: &str, site: Site) {
        drop(site);
        let _ = std::fs::remove_dir_all(self.directory.join(name));
    }
}
