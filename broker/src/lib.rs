//! What the services say to each other over NATS JetStream, and how.
//!
//! [`messages`] are the words: CloudEvents with data of the types there.
//! [`topology`] says over which subjects they go, in which streams they wait and
//! who consumes them. [`connection`], [`publish`] and [`consume`] are the way:
//! a published message is on the broker's disk, a consumed one is acknowledged
//! once it is dealt with (by billing and notify: once its effect is on their disk),
//! and what cannot be dealt with goes to the [`dead_letters`].
//!
//! The broker delivers at least once. What makes each effect happen once is the
//! order's key in every message, not the broker.

#![deny(missing_docs)]

pub mod asyncapi;
pub mod connection;
pub mod consume;
pub mod dead_letters;
pub mod mailbox;
pub mod messages;
pub mod publish;
pub mod topology;

pub use connection::{Broker, BrokerArgs};
pub use consume::{Received, Undealt};
