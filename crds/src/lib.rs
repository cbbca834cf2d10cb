//! The `Order` custom resource and the values it is made of.
//!
//! This crate does no I/O and knows no Kubernetes client: what it says about an
//! order is true wherever the order came from.

#![deny(missing_docs)]

pub mod conditions;
pub mod identity;
pub mod money;
pub mod order;
pub mod texts;

pub use conditions::{ConditionType, Reason};
pub use identity::{EMail, Login};
pub use money::Money;
pub use order::{Charge, HistoryEntry, Order, OrderSpec, OrderStatus, Outcome, Retry, RetryStep};
