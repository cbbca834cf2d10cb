//! The broker's subjects, the streams that store their messages, and the consumers that read them.
//! `helm/orders/files/nats.conf` restricts each service to its own.

use strum::{EnumIter, IntoStaticStr};

/// A service that sends or receives messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Service {
    /// The operator.
    Operator,
    /// Billing.
    Billing,
    /// Notify.
    Notify,
}

/// The operator requests a charge.
pub const PAYMENT_REQUESTED: &str = "orders.payment.requested";
/// The operator requests that a charge be closed.
pub const CLOSE_REQUESTED: &str = "orders.payment.close";
/// The operator requests a refund.
pub const REFUND_REQUESTED: &str = "orders.payment.refund";
/// Billing has refunded a charge.
pub const PAYMENT_REFUNDED: &str = "orders.payment.refunded";
/// Billing has decided a charge.
pub const PAYMENT_DECIDED: &str = "orders.payment.decided";
/// The operator has written an outcome.
pub const DECIDED: &str = "orders.decided";
/// The state of a customer's message changed.
pub const NOTIFICATION_CHANGED: &str = "orders.notification.changed";
/// Prefix of the subjects of dead letters; the name of the service follows.
pub const DEAD_LETTERS: &str = "orders.dead";

/// A stream, which stores messages until they are consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
pub enum Stream {
    /// Requests to billing, until billing has handled them or they are sent again.
    #[strum(serialize = "ORDERS-PAYMENTS")]
    Payments,
    /// Outcomes, until every consumer has handled them.
    #[strum(serialize = "ORDERS-OUTCOMES")]
    Outcomes,
    /// States of customers' messages, until the operator has handled them.
    #[strum(serialize = "ORDERS-NOTIFICATIONS")]
    Notifications,
    /// Dead letters, until they are replayed or a month has passed.
    #[strum(serialize = "ORDERS-DEAD-LETTERS")]
    DeadLetters,
}

/// A consumer: a service, and the subjects that it reads from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The service; also the consumer's durable name.
    pub service: Service,
    /// The stream that it reads from.
    pub stream: Stream,
    /// The subjects that it reads.
    pub subjects: &'static [&'static str],
}

/// Billing reads requests.
pub const BILLING: Consumer = Consumer {
    service: Service::Billing,
    stream: Stream::Payments,
    subjects: &[PAYMENT_REQUESTED, CLOSE_REQUESTED, REFUND_REQUESTED],
};
/// The operator reads the outcomes of charges and refunds.
pub const OPERATOR_OUTCOMES: Consumer =
    Consumer { service: Service::Operator, stream: Stream::Outcomes, subjects: &[PAYMENT_DECIDED, PAYMENT_REFUNDED] };
/// The operator reads the states of customers' messages.
pub const OPERATOR_NOTIFICATIONS: Consumer =
    Consumer { service: Service::Operator, stream: Stream::Notifications, subjects: &[NOTIFICATION_CHANGED] };
/// Notify reads the outcomes from billing and from the operator.
pub const NOTIFY: Consumer =
    Consumer { service: Service::Notify, stream: Stream::Outcomes, subjects: &[DECIDED, PAYMENT_DECIDED] };

impl Service {
    /// The name of the service, which is also its user at the broker.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Stream {
    /// The streams that services consume.
    pub const CONSUMED: [Stream; 3] = [Stream::Payments, Stream::Outcomes, Stream::Notifications];

    /// The name of the stream at the broker.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The subjects whose messages the stream stores.
    pub const fn subjects(self) -> &'static [&'static str] {
        match self {
            Stream::Payments => BILLING.subjects,
            Stream::Outcomes => &[DECIDED, PAYMENT_DECIDED, PAYMENT_REFUNDED],
            Stream::Notifications => &[NOTIFICATION_CHANGED],
            Stream::DeadLetters => &["orders.dead.>"],
        }
    }
}
