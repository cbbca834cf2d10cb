//! The settings of the streams and consumers at the broker.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use orders_contracts::topology::{Consumer, Stream};

/// How often a message is delivered before it is a dead letter: for most of an hour, so that a
/// database that is away for a while makes none.
pub const MAX_DELIVERIES: i64 = 100;

/// How long a consumer may take to acknowledge before the message is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(15);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How a stream keeps messages: on disk, a bounded number of bytes, for a bounded time. A full
/// stream of requests refuses more, which the operator notices. In the others the oldest
/// messages are dropped: one consumer that is away must not stop what the others receive, and
/// what it misses is requested again.
pub fn stream_config(stream: Stream) -> Config {
    let (retention, max_age) = match stream {
        // The operator sends a request again once a minute at least: an older one is a repeat, or its order is gone.
        Stream::Payments => (RetentionPolicy::WorkQueue, Duration::from_secs(150)),
        Stream::Outcomes | Stream::Notifications => (RetentionPolicy::Interest, 7 * DAY),
        Stream::DeadLetters => (RetentionPolicy::Limits, 30 * DAY),
    };
    Config {
        name: stream.name().to_owned(),
        subjects: owned(stream.subjects()),
        retention,
        storage: StorageType::File,
        max_bytes: 32 * 1024 * 1024,
        max_age,
        discard: if stream == Stream::Payments { DiscardPolicy::New } else { DiscardPolicy::Old },
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    }
}

/// How messages are delivered to a consumer.
pub fn consumer_config(consumer: &Consumer) -> pull::Config {
    let (filter_subject, filter_subjects) = match consumer.subjects {
        [one] => ((*one).to_owned(), Vec::new()),
        several => (String::new(), owned(several)),
    };
    pull::Config {
        durable_name: Some(consumer.service.name().to_owned()),
        filter_subject,
        filter_subjects,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // Bounded by the consumer: a message that the broker gave up would be lost silently.
        max_deliver: -1,
        max_ack_pending: 256,
        ..pull::Config::default()
    }
}

fn owned(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|subject| (*subject).to_owned()).collect()
}
