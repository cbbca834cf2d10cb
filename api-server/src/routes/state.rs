//! The state that the routes share.

use std::{sync::Arc, time::Duration};

use orders_service::{admin::ReadyCheck, shutdown::Shutdown};
use tokio::sync::Semaphore;

use crate::{customers::Customers, orders::Orders, proxy::Service};

/// The state that the routes share.
#[derive(Clone)]
pub struct AppState {
    /// The orders.
    pub orders: Orders,
    /// The customers.
    pub customers: Customers,
    /// The billing service.
    pub billing: Service,
    /// The notify service.
    pub notify: Service,
    /// How long to wait for an outcome if the client does not set a wait.
    pub wait: Duration,
    /// How long to wait for the message once the outcome is known.
    pub mail_wait: Duration,
    /// One permit for each client that follows an order.
    pub streams: Arc<Semaphore>,
    /// Whether requests can be handled.
    pub ready: ReadyCheck,
    /// Notifies the streams that they must end.
    pub shutdown: Shutdown,
}
