//! Delivers messages: immediately when a message arrives, and again with backoff until the mail
//! server accepts it.
//!
//! A replica leases a message in the database before it tries to deliver the message, and renews the
//! lease until the attempt ends. After a crash, another replica tries the message when the lease has
//! expired, so each message is delivered at least once. A replica does not try a message again after
//! the mail server has accepted it, however long the database is unavailable.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use orders_service::{broker::Broker, shutdown::Shutdown};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::{
    error::NotifyError,
    in_flight::InFlight,
    lease::Lease,
    log::Log,
    mailer::{MailError, Mailer},
    message::{Message, NewMessage, State},
    publisher::publish_state,
    smtp::SmtpError,
};

/// The duration of a replica's lease on a message. It is longer than the wait for a connection before
/// an attempt. During the attempt, the replica renews the lease.
pub const LEASE: Duration = Duration::from_secs(15);

/// How long a process that stops waits for the attempts in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process that stops waits for the mail server's reply to messages that it has transferred.
/// A content filter may take a minute. The message is sent again if the reply is not awaited.
const STOP_TRANSFER_TIMEOUT: Duration = Duration::from_secs(75);

/// The interval at which notify searches the log for due messages.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The first and the longest pause between two tries to record that the mail server accepted a
/// message.
const MARK_SENT_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// The maximum length of a stored error text, in characters.
const MAX_ERROR: usize = 300;

/// Delivers messages, a bounded number at a time.
#[derive(Clone)]
pub struct Delivery {
    log: Log,
    mailer: Mailer,
    connections: Arc<Semaphore>,
    max_attempts: u32,
    attempts: TaskTracker,
    /// The attempts whose message the mail server may accept at any time.
    transfers: TaskTracker,
    in_flight: InFlight,
    lease: Duration,
    broker: Option<Broker>,
}

impl Delivery {
    /// Creates a delivery of the messages in this log. It uses at most `connections` connections at
    /// the same time, and gives up a message after `max_attempts` attempts.
    pub fn new(log: Log, mailer: Mailer, connections: u32, max_attempts: u32) -> Self {
        let connections = Arc::new(Semaphore::new(connections as usize));
        Delivery {
            log,
            mailer,
            connections,
            max_attempts,
            attempts: TaskTracker::new(),
            transfers: TaskTracker::new(),
            in_flight: InFlight::default(),
            lease: LEASE,
            broker: None,
        }
    }

    /// Sets the duration of the lease, in place of [`LEASE`].
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Delivery { lease, ..self }
    }

    /// Sets the broker to which the result of each attempt is published.
    #[must_use]
    pub fn with_broker(self, broker: Option<Broker>) -> Self {
        Delivery { broker, ..self }
    }

    /// Stores the message once for its key and schedules its delivery, which starts immediately if
    /// a connection is free. Returns the current state of the message, and whether the message is
    /// new.
    ///
    /// # Errors
    /// [`NotifyError`], if the message is not known to be stored.
    pub async fn accept(&self, new: NewMessage) -> Result<(Message, bool), NotifyError> {
        let this = self.clone();
        self.run_to_completion(async move {
            let (message, is_new) = this.log.store(&new, this.lease).await?;
            if is_new {
                match this.connections.clone().try_acquire_owned() {
                    Ok(connection) => drop(this.start_attempt(message.clone(), connection)),
                    Err(_) => this.log.release(message.id).await?,
                }
            }
            Ok((message, is_new))
        })
        .await
    }

    /// Stores the message once for its key and tries to deliver it. Returns as soon as the message
    /// is delivered. Otherwise returns the current state of the message after `timeout`, and
    /// delivery continues.
    ///
    /// # Errors
    /// [`NotifyError`], if the message is not known to be stored.
    pub async fn deliver(&self, new: NewMessage, timeout: Duration) -> Result<Message, NotifyError> {
        let (this, deadline) = (self.clone(), Instant::now() + timeout);
        self.run_to_completion(async move {
            let (message, is_new) = this.log.store(&new, this.lease).await?;
            if message.state() != State::Delivering {
                return Ok(message);
            }
            if !is_new {
                return this.wait_until_sent(message, deadline).await;
            }
            this.deliver_now(message, deadline).await
        })
        .await
    }

    /// Tries again to deliver a message whose delivery was given up, as [`Self::deliver`] does for
    /// a new message. Any other message stays unchanged.
    ///
    /// # Errors
    /// [`NotifyError::Database`].
    pub async fn resend(&self, message: Message, timeout: Duration) -> Result<Message, NotifyError> {
        let (this, deadline) = (self.clone(), Instant::now() + timeout);
        self.run_to_completion(async move {
            match this.log.requeue(&message, message.resends, this.lease).await? {
                Some(requeued) => this.deliver_now(requeued, deadline).await,
                None => Ok(message),
            }
        })
        .await
    }

    /// Runs `work` to completion even if the caller closes the connection. Otherwise, a message could
    /// be leased without an attempt, and no replica would try it until the lease expires.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, NotifyError>> + Send + 'static,
    ) -> Result<T, NotifyError> {
        match self.attempts.spawn(work).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Tries to deliver a message that the caller has leased.
    async fn deliver_now(&self, message: Message, deadline: Instant) -> Result<Message, NotifyError> {
        match tokio::time::timeout_at(deadline, self.connections.clone().acquire_owned()).await {
            Ok(Ok(connection)) => {
                let attempt = tokio::time::timeout_at(deadline, self.start_attempt(message.clone(), connection)).await;
                if let Ok(Ok(Some(message))) = attempt {
                    return Ok(message);
                }
            }
            // All connections are busy for longer than the caller waits: leave the message to the
            // sweep.
            _ => self.log.release(message.id).await?,
        }
        Ok(self.log.find_by_key(&message.key).await?.unwrap_or(message))
    }

    /// Whether a message with this key is stored.
    #[cfg(debug_assertions)]
    pub async fn is_stored(&self, key: &str) -> bool {
        self.log.find_by_key(key).await.is_ok_and(|message| message.is_some())
    }

    async fn wait_until_sent(&self, mut message: Message, deadline: Instant) -> Result<Message, NotifyError> {
        while message.state() == State::Delivering && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
            message = self.log.find_by_key(&message.key).await?.unwrap_or(message);
        }
        Ok(message)
    }

    /// Tries to deliver due messages, until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        let sweeps = async {
            loop {
                tick.tick().await;
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "cannot query due messages; retrying");
                }
            }
        };
        tokio::select! { () = sweeps => {}, () = shutdown.requested() => {} }
    }

    /// Waits for the attempts in progress. The caller must ensure that no new attempt starts.
    pub async fn finish(&self) {
        self.attempts.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.attempts.wait()).await.is_ok() {
            return;
        }
        self.transfers.close();
        let _ = tokio::time::timeout(STOP_TRANSFER_TIMEOUT.saturating_sub(STOP_TIMEOUT), self.transfers.wait()).await;
        tracing::warn!("stopped with deliveries in flight; they are retried after the restart");
    }

    async fn sweep(&self) -> Result<(), NotifyError> {
        // Get the connection first: the lease must cover the attempt, not the wait for a
        // connection.
        while let Ok(connection) = self.connections.clone().try_acquire_owned() {
            let Some(message) = self.log.claim_due(1, self.lease, &self.in_flight.ids()).await?.pop() else { return Ok(()) };
            self.start_attempt(message, connection);
        }
        Ok(())
    }

    /// Starts an attempt, which continues whether or not the caller waits for it. The task resolves
    /// to the updated message, if its state is known.
    fn start_attempt(&self, message: Message, connection: OwnedSemaphorePermit) -> JoinHandle<Option<Message>> {
        let (delivery, guard) = (self.clone(), self.in_flight.insert(message.id));
        self.attempts.spawn(async move {
            let result = delivery.attempt(&message).await;
            drop((connection, guard));
            let (updated, state, error) = result?;
            if let Some(broker) = &delivery.broker {
                publish_state(broker, &message, state, error).await;
            }
            updated
        })
    }

    /// Makes one attempt and records its result in the log. Returns the updated message, its state
    /// and the error. Returns `None` if the result could not be recorded.
    async fn attempt(&self, message: &Message) -> Option<(Option<Message>, State, Option<String>)> {
        let (lease, transfer) = (Lease::of(message, self.lease), OnceLock::new());
        // Called at the latest moment at which the message is certainly not accepted yet.
        let begin_transfer = || {
            transfer.get_or_init(|| self.transfers.token());
            lease.is_held()
        };
        let sent = tokio::select! {
            sent = self.mailer.send(message, begin_transfer) => sent,
            never = lease.keep(&self.log) => match never {},
        };
        let (recorded, state, error) = match sent {
            // Another replica tries the message.
            Err(MailError::Smtp(SmtpError::LeaseExpired)) => return None,
            Ok(()) => {
                tracing::info!(id = message.id, key = %message.key, "message sent");
                (self.mark_sent(message.id).await, State::Sent, None)
            }
            Err(error) => {
                let is_last = error.is_final() || message.attempts + 1 >= i64::from(self.max_attempts);
                let delay = (!is_last).then(|| backoff(message.attempts));
                tracing::warn!(id = message.id, key = %message.key, %error, retry_in = ?delay, "delivery attempt failed");
                if is_last {
                    metrics::counter!("orders_messages_dead_lettered_total").increment(1);
                }
                let error: String = error.to_string().chars().take(MAX_ERROR).collect();
                let state = if is_last { State::DeadLettered } else { State::Delivering };
                (self.log.record_failure(message.id, &error, delay).await, state, Some(error))
            }
        };
        match recorded {
            Ok(updated) => Some((updated, state, error)),
            Err(error) => {
                tracing::warn!(id = message.id, %error, "the result of the attempt was not recorded; the message is retried after its lease");
                None
            }
        }
    }

    /// Records that the mail server accepted a message. Tries again for as long as the database is
    /// unavailable, because a message that is not recorded as sent is sent again. The attempt keeps
    /// its connection until then, which limits the number of such messages. Returns the updated
    /// message, or `None` if this was recorded before.
    async fn mark_sent(&self, id: i64) -> Result<Option<Message>, NotifyError> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(MARK_SENT_BACKOFF.0)
            .with_max_delay(MARK_SENT_BACKOFF.1)
            .without_max_times();
        let warn = |error: &NotifyError, _| tracing::warn!(id, %error, "cannot record that the mail server accepted the message; retrying");
        (|| self.log.mark_sent(id)).retry(backoff).notify(warn).await
    }
}

/// Returns the pause after a failed attempt: 1 s, 2 s, 4 s and so on, at most [`MAX_BACKOFF`].
/// `failed_before` is the number of failed attempts before this attempt.
fn backoff(failed_before: i64) -> Duration {
    let doublings = u32::try_from(failed_before).unwrap_or(0).min(16);
    MAX_BACKOFF.min(Duration::from_secs(1 << doublings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_bound() {
        assert_eq!([0, 1, 2, 50].map(backoff), [1, 2, 4, 300].map(Duration::from_secs));
    }
}
