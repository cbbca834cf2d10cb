//! A service as a process that can be killed and restarted.

use std::path::PathBuf;

use anyhow::Result;
use orders_testbed::{Process, WAIT_TIMEOUT};

/// A service: its process and its URL.
#[derive(Debug)]
pub struct Service {
    /// The running process.
    pub process: Process,
    /// Base URL of its HTTP API. For the operator, base URL of its admin port.
    pub url: String,
    pub(crate) admin: String,
    pub(crate) settings: ServiceSettings,
}

/// The settings with which a service is started and restarted.
#[derive(Clone, Debug)]
pub(crate) struct ServiceSettings {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) env: Vec<(String, String)>,
}

impl ServiceSettings {
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

    /// Restarts the service with the same settings and ports, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; the error shows the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_without_waiting()?;
        self.wait_ready().await
    }

    /// Restarts the service without waiting until it is ready.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn restart_without_waiting(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.settings.spawn()?;
        Ok(())
    }

    /// The URL of its metrics, in the Prometheus format.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }

    /// The URL of its readiness check.
    pub fn readiness_url(&self) -> String {
        format!("http://{}/readyz", self.admin)
    }

    /// Waits until the service reports that it is ready.
    ///
    /// # Errors
    /// If it is not ready within [`WAIT_TIMEOUT`].
    pub async fn wait_ready(&self) -> Result<()> {
        self.process.wait_http(&self.readiness_url(), WAIT_TIMEOUT).await
    }
}
