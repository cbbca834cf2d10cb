//! Hearing something: acknowledged once it is dealt with, delivered again until
//! then, and after [`MAX_DELIVERIES`] a dead letter.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use futures::{FutureExt, StreamExt, future::FusedFuture};
use orders_service::IdempotencyKey;
use serde_json::Value;

use crate::{
    connection::Broker,
    messages::{CloudEvent, Event},
    topology::{Consumer, MAX_DELIVERIES},
};

/// Messages dealt with at once by one consumer.
const AT_ONCE: usize = 32;

/// How long dealing with one may take: with one before it in line, less than the
/// broker waits for it.
const LIMIT: Duration = Duration::from_secs(6);

/// Pause after the broker did not let us consume.
const PAUSE: Duration = Duration::from_secs(1);

/// A CloudEvent as it came, with its data still to be read.
#[derive(Clone, Debug)]
pub struct Received {
    /// The subject that it came over.
    pub subject: String,
    event: CloudEvent<Value>,
}

/// Why a message was not dealt with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undealt {
    /// Not now: deliver it again.
    #[error("{0}")]
    Later(String),
    /// Never, as it is: a dead letter.
    #[error("{0}")]
    Never(String),
}

impl Received {
    fn parse(message: &Message) -> Result<Self, Undealt> {
        let event: CloudEvent<Value> =
            serde_json::from_slice(&message.payload).map_err(|error| Undealt::Never(format!("no CloudEvent: {error}")))?;
        if event.specversion != "1.0" {
            return Err(Undealt::Never(format!("CloudEvents {} is not known here", excerpt(&event.specversion))));
        }
        Ok(Received { subject: message.subject.to_string(), event })
    }

    /// Reads the data, if it is of this type.
    ///
    /// # Errors
    /// [`Undealt::Never`] if it is another, or not as its type says.
    pub fn data<E: Event>(&self) -> Result<E, Undealt> {
        if self.event.type_ != E::TYPE {
            return Err(Undealt::Never(format!("type {} is not known here", excerpt(&self.event.type_))));
        }
        let data = E::deserialize(&self.event.data).map_err(|error| Undealt::Never(format!("data: {error}")))?;
        if data.key() != self.event.subject {
            return Err(Undealt::Never("subject: not the key in data".to_owned()));
        }
        // As over HTTP. Anything else could not be a header, which the broker's message ids are.
        if IdempotencyKey::parse(data.key()).is_none() {
            return Err(Undealt::Never("key: not 1 to 255 visible ASCII characters".to_owned()));
        }
        Ok(data)
    }
}

impl Broker {
    /// Deals with each message until `stop`; then finishes those under way.
    /// What `deal` does must be harmless to repeat.
    pub async fn consume<F, Fut>(&self, consumer: &Consumer, deal: F, stop: impl Future<Output = ()>)
    where
        F: Fn(Received) -> Fut + Sync,
        Fut: Future<Output = Result<(), Undealt>> + Send + 'static,
    {
        let stop = stop.fuse();
        tokio::pin!(stop);
        loop {
            let messages = tokio::select! { () = &mut stop => return, messages = self.messages(consumer) => messages };
            let messages = match messages {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!(error, stream = consumer.stream.name(), "cannot consume; trying again");
                    tokio::select! { () = &mut stop => return, () = tokio::time::sleep(PAUSE) => continue }
                }
            };
            // An error, such as a heartbeat that is missing, ends the subscription; a new one is begun.
            let until_broken =
                messages.take_while(|message| std::future::ready(message.is_ok())).filter_map(|m| async { m.ok() });
            let dealing =
                until_broken.take_until(&mut stop).for_each_concurrent(AT_ONCE, |message| self.deal_with(message, &deal));
            dealing.await;
            if stop.is_terminated() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn messages(&self, consumer: &Consumer) -> Result<async_nats::jetstream::consumer::pull::Stream, String> {
        self.prepare().await?;
        let (stream, config) = (consumer.stream.name(), consumer.config());
        let made = self.jetstream.create_consumer_on_stream(config, stream).await;
        let made = made.map_err(|error| format!("consumer {}: {error}", consumer.service.name()))?;
        let messages =
            made.stream().max_messages_per_batch(AT_ONCE).heartbeat(Duration::from_secs(3)).expires(Duration::from_secs(10));
        messages.messages().await.map_err(|error| error.to_string())
    }

    async fn deal_with<F, Fut>(&self, message: Message, deal: &F)
    where
        F: Fn(Received) -> Fut,
        Fut: Future<Output = Result<(), Undealt>> + Send + 'static,
    {
        let deliveries = message.info().map_or(1, |info| info.delivered);
        let dealt = match Received::parse(&message) {
            // Whoever had it before did not live to say what was wrong with it.
            Ok(_) if deliveries > MAX_DELIVERIES => Err(Undealt::Never("nobody dealt with it to the end".to_owned())),
            Ok(received) => {
                // A task of its own, so that one that panics is this message's misfortune only.
                let mut dealing = tokio::spawn(deal(received));
                match tokio::time::timeout(LIMIT, &mut dealing).await {
                    Ok(Ok(dealt)) => dealt,
                    Ok(Err(_)) => Err(Undealt::Never("dealing with it panicked".to_owned())),
                    Err(_) => {
                        dealing.abort();
                        Err(Undealt::Later("it took too long".to_owned()))
                    }
                }
            }
            Err(undealt) => Err(undealt),
        };
        let result = match &dealt {
            Ok(()) => "done",
            Err(Undealt::Later(_)) => "later",
            Err(Undealt::Never(_)) => "never",
        };
        let subject = message.subject.to_string();
        metrics::counter!("orders_broker_consumed_total", "subject" => subject.clone(), "result" => result).increment(1);
        let answer = match dealt {
            Ok(()) => AckKind::Ack,
            Err(Undealt::Later(why)) if deliveries < MAX_DELIVERIES => {
                tracing::warn!(subject, deliveries, why, "not dealt with; again later");
                AckKind::Nak(Some(pause(deliveries)))
            }
            Err(Undealt::Later(why) | Undealt::Never(why)) => match self.bury(&message, &why, deliveries).await {
                Ok(()) => AckKind::Term,
                Err(error) => {
                    tracing::warn!(subject, %error, "not stored as a dead letter; again later");
                    AckKind::Nak(Some(pause(deliveries)))
                }
            },
        };
        // Not acknowledged means delivered again, which is harmless.
        if let Err(error) = message.ack_with(answer).await {
            tracing::warn!(subject, error, "not acknowledged");
        }
    }
}

/// 0.5 s, 1 s, 2 s … after so many deliveries, at most half a minute.
fn pause(deliveries: i64) -> Duration {
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
    fn pauses_double_up_to_half_a_minute() {
        assert_eq!([1, 2, 3, 7, 99].map(pause), [500, 1000, 2000, 30_000, 30_000].map(Duration::from_millis));
    }
}
