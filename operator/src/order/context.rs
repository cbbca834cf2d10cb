//! The dependencies of a pass over an order: clients, and the state that passes share.

use std::sync::Arc;

use kube::Client;

use super::{settlement::Settlement, watch_echo::WatchEcho};
use crate::{
    customer::context::Customers,
    kube::{events::Publisher, server_clock::ServerClock},
    ports::{Billing, Names, Notify},
};

/// The dependencies of a pass over an order.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The billing service.
    pub billing: Arc<dyn Billing>,
    /// The notify service.
    pub notify: Arc<dyn Notify>,
    /// The names of archived orders.
    pub names: Arc<dyn Names>,
    /// The API server's clock.
    pub clock: ServerClock,
    /// Publishes Events.
    pub events: Publisher,
    /// Waits until the watch has the operator's own write.
    pub echo: WatchEcho,
    /// Settles orders that no longer exist.
    pub settlement: Settlement,
    /// The customers, whose balances change with the orders.
    pub customers: Arc<Customers>,
}
