//! The operator's calls to the Kubernetes API: they read orders, and write their status, finalizer
//! and Events. This module does not decide what an order needs next.

pub mod error;
pub mod events;
pub mod finalizer;
pub mod order_guard;
pub mod server_clock;
pub mod status_patch;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

pub use error::KubeError;
pub use order_guard::OrderGuard;

/// How long one call to the Kubernetes API may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The field manager of all the operator's writes.
pub const FIELD_MANAGER: &str = "orders-operator";

/// The holder of a Lease; empty if it has none.
pub fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}
