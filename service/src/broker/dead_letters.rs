//! Dead letters: messages that a service could not handle, kept to be inspected and replayed.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{self, Message, message::PublishMessage, stream::RawMessageErrorKind},
};
use bytes::Bytes;
use orders_contracts::topology::{DEAD_LETTERS, Stream};
use secrecy::SecretString;

use super::{
    connection::{Broker, CALL_TIMEOUT, options},
    publish::PublishError,
    streams::stream_config,
};

const SUBJECT_HEADER: &str = "Orders-Subject";
const REASON_HEADER: &str = "Orders-Why";
const DELIVERIES_HEADER: &str = "Orders-Deliveries";

/// The maximum length of a stored reason, in characters.
const MAX_REASON: usize = 500;

impl Broker {
    /// Stores a message as a dead letter, with the reason.
    pub(crate) async fn store_dead_letter(&self, message: &Message, reason: &str, deliveries: i64) -> Result<(), PublishError> {
        let (subject, service) = (message.subject.as_str(), self.service.name());
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
        tracing::error!(subject, deliveries, reason, "cannot handle a message; it becomes a dead letter");
        metrics::counter!("orders_broker_dead_letters_total", "subject" => subject.to_owned()).increment(1);
        let letter = PublishMessage::build()
            .payload(message.payload.clone())
            .header(SUBJECT_HEADER, subject)
            .header(REASON_HEADER, reason.as_str())
            .header(DELIVERIES_HEADER, deliveries.to_string().as_str());
        self.store(format!("{DEAD_LETTERS}.{service}"), letter).await
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The sequence number in the stream.
    pub sequence: u64,
    /// The subject of the message.
    pub subject: String,
    /// The service that could not handle it.
    pub service: String,
    /// The reason why the service could not handle it.
    pub reason: String,
    /// How often the message was delivered.
    pub deliveries: String,
    /// The payload of the message.
    pub payload: Bytes,
}

/// An administrator's access to the dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    jetstream: jetstream::Context,
}

impl DeadLetters {
    /// Connects as the user `admin`.
    ///
    /// # Errors
    /// If the broker does not respond, or refuses the password.
    pub async fn connect(url: &str, password: &SecretString) -> anyhow::Result<Self> {
        let client = options("admin", Some(password)).connect(url).await?;
        Ok(DeadLetters { jetstream: jetstream::ContextBuilder::new().timeout(CALL_TIMEOUT).build(client) })
    }

    /// Lists all dead letters, oldest first.
    ///
    /// # Errors
    /// If the broker does not respond.
    pub async fn list(&self) -> anyhow::Result<Vec<DeadLetter>> {
        let stream = self.jetstream.get_or_create_stream(stream_config(Stream::DeadLetters)).await?;
        let state = stream.get_info().await?.state;
        let mut letters = Vec::new();
        // An empty stream that never had a message begins at 0, which is no number of a message.
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            match tokio::time::timeout(Duration::from_secs(5), stream.get_raw_message(sequence)).await? {
                Ok(message) => {
                    let header = |name| header(&message.headers, name);
                    letters.push(DeadLetter {
                        sequence,
                        subject: header(SUBJECT_HEADER),
                        service: message.subject.rsplit('.').next().unwrap_or_default().to_owned(),
                        reason: header(REASON_HEADER),
                        deliveries: header(DELIVERIES_HEADER),
                        payload: message.payload,
                    });
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {} // replayed already
                Err(error) => return Err(error.into()),
            }
        }
        Ok(letters)
    }

    /// Publishes the message again on its subject, and deletes the dead letter.
    ///
    /// # Errors
    /// If the broker does not respond. The dead letter may then still exist.
    pub async fn replay(&self, letter: &DeadLetter) -> anyhow::Result<()> {
        let message = PublishMessage::build().payload(letter.payload.clone());
        self.jetstream.send_publish(letter.subject.clone(), message).await?.await?;
        let stream = self.jetstream.get_stream(Stream::DeadLetters.name()).await?;
        stream.delete_message(letter.sequence).await?;
        Ok(())
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default()
}
