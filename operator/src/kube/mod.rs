//! The Kubernetes API as the operator uses it: how an order is read, its status,
//! finalizer and Events written. Nothing here knows what an order needs next.

pub mod error;
pub mod events;
pub mod finalizer;
pub mod order_guard;
pub mod status_patch;

use std::time::Duration;

pub use error::KubeError;
pub use order_guard::OrderGuard;

/// How long one call to the Kubernetes API may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Field manager of whatever the operator writes.
pub const FIELD_MANAGER: &str = "orders-operator";
