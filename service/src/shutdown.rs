//! Ending well: SIGTERM and Ctrl-C stop taking work and finish what was begun.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// The longest a process works on after it was told to stop.
pub const GRACE: Duration = Duration::from_secs(20);

/// Tells, to any number of tasks, that the process was asked to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Starts to listen for SIGTERM and SIGINT. A second signal ends the process at once.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            let mut wait = async || tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} };
            wait().await;
            tracing::info!("asked to stop; finishing what was begun");
            let _ = stop.send(true);
            wait().await;
            tracing::warn!("asked twice; stopping at once");
            std::process::exit(130);
        });
        Ok(Shutdown(stopped))
    }

    /// Resolves once the process was asked to stop.
    pub async fn requested(mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the process was asked to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Serves until shutdown and waits for what listens beside it, within [`GRACE`].
    ///
    /// # Errors
    /// If the listener ends before it was asked to: a process that serves and does
    /// not listen would look healthy and be deaf.
    pub async fn serve_beside(self, serving: impl Future<Output = ()>, mut listening: JoinHandle<()>) -> anyhow::Result<()> {
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
            () = self.out_of_time() => {
                tracing::warn!("some messages were not dealt with in time; they come again");
                Ok(())
            }
        }
    }

    /// Resolves [`GRACE`] after the process was asked to stop: what is still
    /// under way is to be given up.
    pub async fn out_of_time(self) {
        self.requested().await;
        tokio::time::sleep(GRACE).await;
    }
}
