//! A run of the benchmark: its options, its directory and its results.

use std::path::{Path, PathBuf};

use anyhow::Result;
use orders_shop::Database;

use crate::environment::{Environment, EnvironmentOptions};
use crate::options::Options;
use crate::progress::print_progress;
use crate::report::Report;

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

    /// Starts a new environment for one measurement.
    ///
    /// # Errors
    /// As [`Environment::start`].
    pub async fn start(&self, name: &str, database: Database, settings: EnvironmentOptions) -> Result<Environment> {
        print_progress(&format!("{name}: starting"));
        Environment::start(&self.directory.join(name), database, &self.options, settings).await
    }

    /// Stops an environment and deletes its files: the etcd of a round alone has hundreds of megabytes.
    /// The logs of a failed environment are kept.
    pub fn stop(&self, name: &str, environment: Environment) {
        drop(environment);
        let _ = std::fs::remove_dir_all(self.directory.join(name));
    }
}
