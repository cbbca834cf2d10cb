//! A run of the bench: its options, where it writes, what it has measured.

use std::path::{Path, PathBuf};

use anyhow::Result;
use orders_shop::Database;

use crate::options::Options;
use crate::report::Report;
use crate::site::{Site, Wanted};

/// A run.
#[derive(Debug)]
pub struct Bench {
    /// What was asked for.
    pub options: Options,
    /// What was measured.
    pub report: Report,
    /// Logs and data of what is started.
    directory: PathBuf,
}

impl Bench {
    /// A run that writes below this directory.
    pub fn new(options: Options, directory: &Path) -> Self {
        Bench { options, report: Report::default(), directory: directory.to_owned() }
    }

    /// Starts a site of its own for one measurement.
    ///
    /// # Errors
    /// As [`Site::open`].
    pub async fn open(&self, name: &str, database: Database, wanted: Wanted) -> Result<Site> {
        say(&format!("{name}: starting"));
        Site::open(&self.directory.join(name), database, &self.options, wanted).await
    }

    /// Ends it and removes what it wrote: a round's etcd alone has hundreds of megabytes.
    /// The logs of one that failed stay.
    pub fn close(&self, name: &str, site: Site) {
        drop(site);
        let _ = std::fs::remove_dir_all(self.directory.join(name));
    }
}

/// Says on standard error how far it is.
pub fn say(what: &str) {
    eprintln!("{what}");
}
