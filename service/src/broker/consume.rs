//! Consuming messages. A message is acknowledged once it is handled, and delivered again until
//! then. After [`MAX_DELIVERIES`] deliveries, it becomes a dead letter.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use futures::{FutureExt, StreamExt, future::FusedFuture};
use orders_contracts::{
    events::{CloudEvent, Event},
    topology::Consumer,
};
use serde_json::Value;

use super::{
    connection::Broker,
    streams::{MAX_DELIVERIES, consumer_config},
};
use crate::IdempotencyKey;

/// The maximum number of messages that one consumer handles concurrently.
const MAX_CONCURRENT: usize = 32;

/// The time limit of a handler. Twice this limit is less than the broker's wait for the
/// acknowledgement.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(6);

/// The delay before the next attempt to subscribe, after a failed one.
const SUBSCRIBE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A CloudEvent whose data is not parsed yet.
#[derive(Clone, Debug)]
pub struct Received {
    /// The subject on which the message was published.
    pub subject: String,
    event: CloudEvent<Value>,
}

/// Why a message was not handled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// The message cannot be handled now. It is delivered again.
    #[error("{0}")]
    Retry(String),
    /// The message can never be handled. It becomes a dead letter.
    #[error("{0}")]
    Reject(String),
}

impl Received {
    fn parse(message: &Message) -> Result<Self, HandlerError> {
        let event: CloudEvent<Value> = serde_json::from_slice(&message.payload)
            .map_err(|error| HandlerError::Reject(format!("not a CloudEvent: {error}")))?;
        if event.specversion != "1.0" {
            return Err(HandlerError::Reject(format!("unsupported CloudEvents version {}", excerpt(&event.specversion))));
        }
        Ok(Received { subject: message.subject.to_string(), event })
    }

    /// Parses the data as this type.
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if the event has another type, or its data or key is invalid for
    /// this type.
    pub fn data<E: Event>(&self) -> Result<E, HandlerError> {
        if self.event.type_ != E::TYPE {
            return Err(HandlerError::Reject(format!("unknown type {}", excerpt(&self.event.type_))));
        }
        let data = E::deserialize(&self.event.data).map_err(|error| HandlerError::Reject(format!("data: {error}")))?;
        if data.key() != self.event.subject {
            return Err(HandlerError::Reject("subject: differs from the key in data".to_owned()));
        }
        // The same rule as over HTTP. The broker's message ids are headers, so a key must be valid
        // in a header.
        if IdempotencyKey::parse(data.key()).is_none() {
            return Err(HandlerError::Reject("key: not 1 to 255 visible ASCII characters".to_owned()));
        }
        Ok(data)
    }
}

impl Broker {
    /// Handles messages until `stop` resolves, then finishes the messages in progress. The effect
    /// of `handler` must be idempotent.
    pub async fn consume<F, Fut>(&self, consumer: &Consumer, handler: F, stop: impl Future<Output = ()>)
    where
        F: Fn(Received) -> Fut + Sync,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let stop = stop.fuse();
        tokio::pin!(stop);
        loop {
            let messages = tokio::select! { () = &mut stop => return, messages = self.subscribe(consumer) => messages };
            let messages = match messages {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!(error, stream = consumer.stream.name(), "cannot consume; retrying");
                    tokio::select! { () = &mut stop => return, () = tokio::time::sleep(SUBSCRIBE_RETRY_DELAY) => continue }
                }
            };
            // An error, such as a missing heartbeat, ends the subscription. The loop then starts a
            // new one.
            let subscription =
                messages.take_while(|message| std::future::ready(message.is_ok())).filter_map(|m| async { m.ok() });
            let handling =
                subscription.take_until(&mut stop).for_each_concurrent(MAX_CONCURRENT, |message| self.handle(message, &handler));
            handling.await;
            if stop.is_terminated() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn subscribe(&self, consumer: &Consumer) -> Result<async_nats::jetstream::consumer::pull::Stream, String> {
        self.ensure_streams().await?;
        let (stream, config) = (consumer.stream.name(), consumer_config(consumer));
        let created = self.jetstream.create_consumer_on_stream(config, stream).await;
        let created = created.map_err(|error| format!("consumer {}: {error}", consumer.service.name()))?;
        let messages = created
            .stream()
            .max_messages_per_batch(MAX_CONCURRENT)
            .heartbeat(Duration::from_secs(3))
            .expires(Duration::from_secs(10));
        messages.messages().await.map_err(|error| error.to_string())
    }

    async fn handle<F, Fut>(&self, message: Message, handler: &F)
    where
        F: Fn(Received) -> Fut,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let deliveries = message.info().map_or(1, |info| info.delivered);
        let result = match Received::parse(&message) {
            // Every earlier handler ended without an error that could be reported.
            Ok(_) if deliveries > MAX_DELIVERIES => Err(HandlerError::Reject("no handler finished".to_owned())),
            Ok(received) => {
                // The handler has its own task, so that a panic affects only this message.
                let mut handling = tokio::spawn(handler(received));
                match tokio::time::timeout(HANDLER_TIMEOUT, &mut handling).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err(HandlerError::Reject("the handler panicked".to_owned())),
                    Err(_) => {
                        handling.abort();
                        Err(HandlerError::Retry("the handler timed out".to_owned()))
                    }
                }
            }
            Err(error) => Err(error),
        };
        let label = match &result {
            Ok(()) => "done",
            Err(HandlerError::Retry(_)) => "later",
            Err(HandlerError::Reject(_)) => "never",
        };
        let subject = message.subject.to_string();
        metrics::counter!("orders_broker_consumed_total", "subject" => subject.clone(), "result" => label).increment(1);
        let ack = match result {
            Ok(()) => AckKind::Ack,
            Err(HandlerError::Retry(reason)) if deliveries < MAX_DELIVERIES => {
                tracing::warn!(subject, deliveries, reason, "cannot handle a message; it is delivered again");
                AckKind::Nak(Some(backoff(deliveries)))
            }
            Err(HandlerError::Retry(reason) | HandlerError::Reject(reason)) => {
                match self.store_dead_letter(&message, &reason, deliveries).await {
                    Ok(()) => AckKind::Term,
                    Err(error) => {
                        tracing::warn!(subject, %error, "cannot store a dead letter; the message is delivered again");
                        AckKind::Nak(Some(backoff(deliveries)))
                    }
                }
            }
        };
        // A message that is not acknowledged is delivered again, which is harmless.
        if let Err(error) = message.ack_with(ack).await {
            tracing::warn!(subject, error, "cannot acknowledge a message");
        }
    }
}

/// The delay before the next delivery: 0.5 s after the first one, doubled after each further one,
/// at most half a minute.
fn backoff(deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries - 1).unwrap_or(0).min(16);
    Duration::from_secs(30).min(Duration::from_millis(500 << doublings))
}

fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_half_a_minute() {
        assert_eq!([1, 2, 3, 7, 99].map(backoff), [500, 1000, 2000, 30_000, 30_000].map(Duration::from_millis));
    }
}
