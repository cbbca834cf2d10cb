//! Graceful shutdown: after SIGTERM or Ctrl-C, a process accepts no new work and finishes the work
//! in progress.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// The grace period: how long a process may continue to work after shutdown is requested.
pub const GRACE: Duration = Duration::from_secs(20);

/// Notifies any number of tasks that shutdown is requested.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Starts to listen for SIGTERM and SIGINT. A second signal ends the process immediately.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            let mut wait = async || tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} };
            wait().await;
            tracing::info!("shutdown requested; finishing the work in progress");
            let _ = stop.send(true);
            wait().await;
            tracing::warn!("shutdown requested again; exiting immediately");
            std::process::exit(130);
        });
        Ok(Shutdown(stopped))
    }

    /// Resolves when shutdown is requested.
    pub async fn requested(mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether shutdown is requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Serves until shutdown, then waits within [`GRACE`] for the listener that runs beside the
    /// server.
    ///
    /// # Errors
    /// If the listener ends before shutdown is requested. A process that serves but does not listen
    /// would look healthy and receive no messages.
    pub async fn serve_with_listener(
        self,
        serving: impl Future<Output = ()>,
        mut listening: JoinHandle<()>,
    ) -> anyhow::Result<()> {
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            ended = &mut listening => {
                ended.context("the listener failed")?;
                anyhow::ensure!(self.is_requested(), "the listener ended");
                serving.await;
                return Ok(());
            }
        }
        tokio::select! {
            ended = listening => Ok(ended.context("the listener failed")?),
            () = self.grace_elapsed() => {
                tracing::warn!("some messages were not handled within the grace period; they are delivered again");
                Ok(())
            }
        }
    }

    /// Resolves when [`GRACE`] has passed since shutdown was requested. The caller then abandons
    /// the work that is still in progress.
    pub async fn grace_elapsed(self) {
        self.requested().await;
        tokio::time::sleep(GRACE).await;
    }
}
