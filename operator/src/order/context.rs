//! What a pass over an order needs.

use std::sync::Arc;

use kube::Client;

use super::{deletion::Deletion, watch_echo::WatchEcho};
use crate::{
    customer::controller::Customers,
    kube::events::Publisher,
    ports::{Billing, Notify},
};

/// What a pass over an order needs.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The billing service.
    pub billing: Arc<dyn Billing>,
    /// The notify service.
    pub notify: Arc<dyn Notify>,
    /// Publishes Events.
    pub events: Publisher,
    /// The operator's own writes, as the watch brings them.
    pub echo: WatchEcho,
    /// Settles orders that were deleted.
    pub deletion: Deletion,
    /// The customers, whose balances change with the orders.
    pub customers: Arc<Customers>,
}
