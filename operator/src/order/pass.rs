//! The result of a pass over an order.

use jiff::Timestamp;
use orders_crds::OrderStatus;

use super::status::StatusBuilder;
use crate::ports::Purchase;

/// The result of a pass.
pub struct Pass {
    /// The data of the order that the services need, or why the order cannot be read.
    pub purchase: Result<Purchase, String>,
    /// The status before the pass.
    pub before: OrderStatus,
    /// The status after the pass, and the events to publish.
    pub after: StatusBuilder,
    /// When the step that failed is retried.
    pub(super) next: Option<Timestamp>,
}
