//! A service as a process that can be killed and started again.

use std::path::PathBuf;

use anyhow::Result;
use orders_testbed::{PATIENCE, Process};

/// A service: its process and where it answers.
#[derive(Debug)]
pub struct Service {
    /// The running process.
    pub process: Process,
    /// Base URL of its HTTP API; that of the admin port for the operator.
    pub url: String,
    pub(crate) admin: String,
    pub(crate) start: Start,
}

/// How a service was started, so that it can be started again just so.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) env: Vec<(String, String)>,
}

impl Start {
    pub(crate) fn spawn(&self) -> Result<Process> {
        Process::builder(&self.name, &self.program, &self.directory).envs(self.env.iter().map(|(k, v)| (k, v))).spawn()
    }
}

impl Service {
    /// Kills the process, as a power cut would (SIGKILL).
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again as it was, on the same ports, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; the error shows the end of its log.
    pub async fn start_again(&mut self) -> Result<()> {
        self.start_again_unready()?;
        self.ready().await
    }

    /// Starts it again without waiting.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_again_unready(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.start.spawn()?;
        Ok(())
    }

    /// Where its metrics are, as Prometheus reads them.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`].
    pub async fn ready(&self) -> Result<()> {
        self.process.wait_http(&format!("http://{}/readyz", self.admin), PATIENCE).await
    }
}
