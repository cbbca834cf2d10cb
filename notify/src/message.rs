//! Messages to customers, and the state of their delivery.

use sqlx::FromRow;

/// A message as stored. Times are microseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Message {
    /// The ID of the message. IDs increase in the order of arrival.
    pub id: i64,
    /// The idempotency key: repeated requests with the same key are for the same message.
    pub key: String,
    /// The customer.
    pub login: String,
    /// The e-mail address.
    pub email: String,
    /// The text.
    pub text: String,
    /// When the message was stored.
    pub created_at: i64,
    /// When the mail server accepted the message.
    pub sent_at: Option<i64>,
    /// The number of failed attempts.
    pub attempts: i64,
    /// The earliest time of the next attempt.
    pub next_attempt_at: i64,
    /// The error of the last failed attempt.
    pub last_error: Option<String>,
    /// When delivery was given up, if it was.
    pub dead_at: Option<i64>,
    /// The number of resends that were requested after delivery had been given up.
    pub resends: i64,
}

/// The delivery state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The mail server accepted the message.
    Sent,
    /// Notify is trying to deliver the message.
    Delivering,
    /// Delivery was given up after the maximum number of failed attempts.
    DeadLettered,
}

impl Message {
    /// Returns the delivery state.
    pub fn state(&self) -> State {
        match (self.sent_at, self.dead_at) {
            (Some(_), _) => State::Sent,
            (None, Some(_)) => State::DeadLettered,
            (None, None) => State::Delivering,
        }
    }
}

/// A message to store.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The idempotency key: repeated requests with the same key are for the same message.
    pub key: String,
    /// The customer.
    pub login: String,
    /// The e-mail address.
    pub email: String,
    /// The text.
    pub text: String,
    /// The number of resends that were requested after delivery had been given up. Notify tries to
    /// deliver the message again if this number is larger than the stored one.
    pub resends: i64,
}
