//! NATS JetStream: how the messages of [`orders_contracts::events`] are sent and received.
//!
//! A published message is on the broker's disk. A consumed message is acknowledged once it is
//! handled (by billing and notify: once its effect is on their disk). A message that cannot be
//! handled becomes a [dead letter](dead_letters). The broker delivers at least once; the
//! order's key in each message makes its effect happen once.

pub mod connection;
pub mod consume;
pub mod dead_letters;
pub mod publish;
pub mod reply_table;
pub mod streams;

pub use connection::{Broker, BrokerArgs};
pub use consume::{HandlerError, Received};
