//! The finalizer of an order whose charge is unknown or whose refund is pending.
//!
//! A finalizer on every order would cost two more writes per order. Therefore an order gets it only
//! if a pass ends with the charge unknown or the refund pending. The finalizer is removed when the
//! charge is settled. If the order is being deleted, its customer must be notified first.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use orders_crds::{OrderStatus, order::FINALIZER};
use serde_json::json;

use super::{
    CALL_TIMEOUT, FIELD_MANAGER, KubeError, OrderGuard,
    status_patch::{WriteResult, interpret_write},
};

/// How long a deleted order keeps the finalizer while its charge is unknown or its customer is not
/// notified. After that the finalizer is removed, so that a namespace can be deleted even if its
/// billing service never returns.
pub const SETTLEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// Whether the order has the finalizer.
pub fn has_finalizer(order: &OrderGuard) -> bool {
    order.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Whether the order must have the finalizer: its charge was begun and is not settled, or the order
/// is being deleted and its customer is still to be notified. Kubernetes does not allow a finalizer
/// to be added to an order that is being deleted.
pub fn needs_finalizer(order: &OrderGuard, status: &OrderStatus) -> bool {
    let is_charge_open = !status.is_pending() && status.is_charge_open();
    match order.meta().deletion_timestamp {
        None => is_charge_open,
        Some(_) => has_finalizer(order) && (is_charge_open || status.is_message_open()),
    }
}

/// Whether the deletion of the order was requested more than [`SETTLEMENT_TIMEOUT`] ago.
pub fn is_overdue(order: &OrderGuard, now: Timestamp) -> bool {
    order.meta().deletion_timestamp.as_ref().is_some_and(|deleted| deleted.0 + SETTLEMENT_TIMEOUT < now)
}

/// Adds or removes the finalizer, if the order still has this resource version.
///
/// # Errors
/// [`KubeError`]; a conflict if another client changed the order.
pub async fn set_finalizer(
    order: &OrderGuard,
    version: Option<String>,
    is_needed: bool,
    client: &Client,
) -> Result<WriteResult, KubeError> {
    let mut finalizers: Vec<&str> = order.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
    if is_needed {
        finalizers.push(FINALIZER);
    }
    let orders: Api<OrderGuard> = Api::namespaced(client.clone(), &order.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } }));
    let (name, params) = (order.name_any(), PatchParams::apply(FIELD_MANAGER));
    interpret_write(order, &orders, tokio::time::timeout(CALL_TIMEOUT, orders.patch(&name, &params, &patch)).await?).await
}
