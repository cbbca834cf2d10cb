//! Sends and receives the messages of [`orders_contracts::events`] over NATS JetStream.
//!
//! A message counts as published once it is on the broker's disk. A consumer acknowledges a message
//! once it is handled (billing and notify: once its effect is on their disk). A message that cannot
//! be handled becomes a [dead letter](dead_letters). The broker delivers each message at least
//! once. The order's key in each message ensures that its effect happens once.

pub mod connection;
pub mod consume;
pub mod dead_letters;
pub mod publish;
pub mod reply_table;
pub mod streams;

pub use connection::{Broker, BrokerArgs};
pub use consume::{HandlerError, Received};
