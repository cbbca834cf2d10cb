//! Publishing messages. A message counts as published once the broker has it on disk.

use async_nats::jetstream::message::PublishMessage;

use orders_contracts::events::{CloudEvent, Event};

use super::connection::{Broker, CALL_TIMEOUT};

/// A failed publish. Whether the broker has the message is not known, so the caller publishes it
/// again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broker: {0}")]
pub struct PublishError(pub String);

impl Broker {
    /// Publishes an event and waits until the broker has stored it. If several messages have the
    /// same id within two minutes, the broker keeps only the first.
    ///
    /// # Errors
    /// [`PublishError`], within a few seconds.
    pub async fn publish<E: Event>(&self, subject: &'static str, id: String, data: E) -> Result<(), PublishError> {
        let event = CloudEvent::new(self.service, id, data);
        let payload = serde_json::to_vec(&event).map_err(|error| PublishError(error.to_string()))?;
        let message = PublishMessage::build()
            .message_id(&event.id)
            .header("content-type", "application/cloudevents+json")
            .payload(payload.into());
        let published = self.store(subject, message).await;
        metrics::counter!("orders_broker_published_total", "subject" => subject, "stored" => if published.is_ok() { "true" } else { "false" })
            .increment(1);
        published
    }

    pub(crate) async fn store(&self, subject: impl Into<String>, message: PublishMessage) -> Result<(), PublishError> {
        use async_nats::jetstream::context::PublishErrorKind;
        let subject = subject.into();
        let storing = async { self.jetstream.send_publish(subject, message).await?.await };
        match tokio::time::timeout(CALL_TIMEOUT, storing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    // Creates the streams for the next message. This call does not wait for them.
                    let broker = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = broker.ensure_streams().await {
                            tracing::warn!(error, "cannot create the streams");
                        }
                    });
                }
                Err(PublishError(error.to_string()))
            }
            Err(_) => Err(PublishError("no acknowledgement in time".to_owned())),
        }
    }
}
