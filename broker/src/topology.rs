//! Which messages go where: subjects, the streams that keep them, the consumers
//! that read them. `helm/orders/files/nats.conf` lets each service reach its own only.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};

/// A service that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The operator.
    Operator,
    /// Billing.
    Billing,
    /// Notify.
    Notify,
}

/// The operator asks billing for a payment.
pub const PAYMENT_REQUESTED: &str = "orders.payment.requested";
/// The operator has billing close a charge.
pub const CLOSE_REQUESTED: &str = "orders.payment.close";
/// The operator has billing give a charge back.
pub const REFUND_REQUESTED: &str = "orders.payment.refund";
/// Billing tells that a charge was given back.
pub const PAYMENT_REFUNDED: &str = "orders.payment.refunded";
/// Billing tells what became of a payment.
pub const PAYMENT_DECIDED: &str = "orders.payment.decided";
/// The operator tells what became of an order.
pub const DECIDED: &str = "orders.decided";
/// Notify tells how a customer's message stands.
pub const NOTIFICATION_CHANGED: &str = "orders.notification.changed";
/// What could not be dealt with, by the service that could not.
pub const DEAD: &str = "orders.dead";

/// Where messages wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Requests to billing, until billing has dealt with them or they are asked again.
    Payments,
    /// Outcomes, until everybody who is told has dealt with them.
    Outcomes,
    /// States of customers' messages, until the operator knows.
    Notifications,
    /// Dead letters, until somebody replays them or a month has passed.
    DeadLetters,
}

/// Who reads what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Who; also the consumer's durable name.
    pub service: Service,
    /// From where.
    pub stream: Stream,
    /// Only these subjects.
    pub subjects: &'static [&'static str],
}

/// Billing reads requests.
pub const BILLING: Consumer = Consumer {
    service: Service::Billing,
    stream: Stream::Payments,
    subjects: &[PAYMENT_REQUESTED, CLOSE_REQUESTED, REFUND_REQUESTED],
};
/// The operator reads outcomes of payments.
pub const OPERATOR_OUTCOMES: Consumer =
    Consumer { service: Service::Operator, stream: Stream::Outcomes, subjects: &[PAYMENT_DECIDED, PAYMENT_REFUNDED] };
/// The operator reads how customers' messages stand.
pub const OPERATOR_NOTIFICATIONS: Consumer =
    Consumer { service: Service::Operator, stream: Stream::Notifications, subjects: &[NOTIFICATION_CHANGED] };
/// Notify reads outcomes, whoever tells them.
pub const NOTIFY: Consumer =
    Consumer { service: Service::Notify, stream: Stream::Outcomes, subjects: &[DECIDED, PAYMENT_DECIDED] };

/// How often a message is delivered before it is a dead letter: for most of an
/// hour, so that a database that is away for a while makes none.
pub const MAX_DELIVERIES: i64 = 100;

/// How long a consumer may take to acknowledge before the message is delivered again.
pub const ACK_WAIT: Duration = Duration::from_secs(15);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Service {
    /// Its name, which is also its user.
    pub const fn name(self) -> &'static str {
        match self {
            Service::Operator => "operator",
            Service::Billing => "billing",
            Service::Notify => "notify",
        }
    }
}

impl Stream {
    /// All there are.
    pub const ALL: [Stream; 4] = [Stream::Payments, Stream::Outcomes, Stream::Notifications, Stream::DeadLetters];

    /// Those that services read.
    pub const READ: [Stream; 3] = [Stream::Payments, Stream::Outcomes, Stream::Notifications];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Payments => "ORDERS-PAYMENTS",
            Stream::Outcomes => "ORDERS-OUTCOMES",
            Stream::Notifications => "ORDERS-NOTIFICATIONS",
            Stream::DeadLetters => "ORDERS-DEAD-LETTERS",
        }
    }

    /// How it keeps messages: on disk, a bounded number of bytes, for a bounded
    /// time. A full stream of requests takes no more, which the operator hears. In
    /// the others the oldest make room: one consumer that is away must not stop
    /// what the others are told, and what it misses is asked for again.
    pub fn config(self) -> Config {
        let (subjects, retention, max_age): (&[&str], _, _) = match self {
            // The operator asks again once a minute at least: an older request is a repeat, or its order is gone.
            Stream::Payments => (BILLING.subjects, RetentionPolicy::WorkQueue, Duration::from_secs(150)),
            Stream::Outcomes => (&[DECIDED, PAYMENT_DECIDED, PAYMENT_REFUNDED], RetentionPolicy::Interest, 7 * DAY),
            Stream::Notifications => (&[NOTIFICATION_CHANGED], RetentionPolicy::Interest, 7 * DAY),
            Stream::DeadLetters => (&["orders.dead.>"], RetentionPolicy::Limits, 30 * DAY),
        };
        Config {
            name: self.name().to_owned(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            retention,
            storage: StorageType::File,
            max_bytes: 32 * 1024 * 1024,
            max_age,
            discard: if self == Stream::Payments { DiscardPolicy::New } else { DiscardPolicy::Old },
            duplicate_window: Duration::from_secs(120),
            ..Config::default()
        }
    }
}

impl Consumer {
    /// How it is delivered to.
    pub fn config(&self) -> pull::Config {
        let one = self.subjects.len() == 1;
        pull::Config {
            durable_name: Some(self.service.name().to_owned()),
            filter_subject: if one { self.subjects[0].to_owned() } else { String::new() },
            filter_subjects: if one { Vec::new() } else { self.subjects.iter().map(|s| (*s).to_owned()).collect() },
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // Bounded by who consumes: what the broker gave up by itself nobody would see.
            max_deliver: -1,
            max_ack_pending: 256,
            ..pull::Config::default()
        }
    }
}
