//! Ending well: SIGTERM and Ctrl-C stop taking work and finish what was begun.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
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

    /// Resolves [`GRACE`] after the process was asked to stop: what is still
    /// under way is to be given up.
    pub async fn out_of_time(self) {
        self.requested().await;
        tokio::time::sleep(GRACE).await;
    }
}
