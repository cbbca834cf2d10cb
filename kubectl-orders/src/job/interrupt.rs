//! Catches the signals that interrupt a run, so that its Job can be deleted.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM and SIGHUP. Once caught, these signals no longer end the program by themselves.
pub struct Interrupt {
    ctrl_c: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    /// Starts to catch the signals.
    ///
    /// # Errors
    /// If the operating system does not allow it.
    pub fn catch() -> io::Result<Self> {
        Ok(Interrupt {
            ctrl_c: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal. Returns immediately if a signal has arrived since [`Interrupt::catch`].
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
