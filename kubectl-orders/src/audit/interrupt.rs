//! Being told to end before the end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and its like. Once caught, they no longer end the program by themselves.
pub struct Interrupt {
    ctrl_c: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    /// Catches them from now on.
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

    /// Waits until one comes; at once if one came since they are caught.
    pub async fn came(&mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
