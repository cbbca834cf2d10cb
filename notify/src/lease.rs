//! The lease on a message that a replica is trying to deliver. No other replica tries the message before
//! the lease expires.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use jiff::Timestamp;

use crate::{log::Log, message::Message};

/// The lease of this replica on a message.
pub(crate) struct Lease {
    id: i64,
    /// When the lease expires, in microseconds since 1970-01-01 UTC.
    expiry: AtomicI64,
    duration: Duration,
}

impl Lease {
    /// The lease with which the message was stored or claimed. `duration`: how long each renewal lasts.
    pub(crate) fn of(message: &Message, duration: Duration) -> Self {
        Lease { id: message.id, expiry: AtomicI64::new(message.next_attempt_at), duration }
    }

    /// Whether this replica still holds the lease. A process that was suspended no longer does.
    pub(crate) fn is_held(&self) -> bool {
        Timestamp::now().as_microsecond() < self.expiry.load(Ordering::Relaxed)
    }

    /// Renews the lease for as long as the future is polled. An attempt may take longer than a lease,
    /// and the message may still be accepted until it ends.
    pub(crate) async fn keep(&self, log: &Log) -> Infallible {
        loop {
            tokio::time::sleep(self.duration / 3).await;
            match log.renew_lease(self.id, self.expiry.load(Ordering::Relaxed), self.duration).await {
                Ok(Some(expiry)) => self.expiry.store(expiry, Ordering::Relaxed),
                Ok(None) => self.expiry.store(0, Ordering::Relaxed),
                Err(error) => tracing::warn!(id = self.id, %error, "cannot renew the lease on the message; retrying"),
            }
        }
    }
}
