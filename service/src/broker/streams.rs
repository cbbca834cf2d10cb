//! The settings of the broker's streams and consumers.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use orders_contracts::topology::{Consumer, Stream};

/// How often a message is delivered before it becomes a dead letter. The deliveries extend over
/// most of an hour, so that a temporary outage of a database causes no dead letters.
pub const MAX_DELIVERIES: i64 = 100;

/// How long a consumer may take to acknowledge before the message is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(15);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of a stream. A stream keeps messages on disk, up to a limited size and for a
/// limited time. A full stream of requests refuses further messages, which the operator notices.
/// The other streams drop their oldest messages: a consumer that is down must not stop the messages
/// to other consumers. The messages that it misses are requested again.
pub fn stream_config(stream: Stream) -> Config {
    let (retention, max_age) = match stream {
        // The operator repeats a request at least once a minute. An older request is a duplicate,
        // or its order no longer exists.
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

/// The settings of a consumer.
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
        // The consumer limits the deliveries itself. A message that the broker gave up would be
        // lost silently.
        max_deliver: -1,
        max_ack_pending: 256,
        ..pull::Config::default()
    }
}

fn owned(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|subject| (*subject).to_owned()).collect()
}
