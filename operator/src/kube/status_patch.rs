//! Writes the status of an order, only if the order still has the resource version that was read.
//! This module also interprets the results of other writes to an order.

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use orders_crds::OrderStatus;
use serde_json::{Value, json};

use super::{CALL_TIMEOUT, FIELD_MANAGER, KubeError, OrderGuard};

/// The result of a write to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// The order has this resource version now.
    Version(Option<String>),
    /// The order was deleted, or another order has its name.
    NotFound,
}

/// Writes the status of an order if it still has the resource version that was read.
///
/// # Errors
/// [`KubeError`]; a conflict if another client changed the order.
pub async fn write_status(order: &OrderGuard, status: &OrderStatus, client: &Client) -> Result<WriteResult, KubeError> {
    let orders: Api<OrderGuard> = Api::namespaced(client.clone(), &order.namespace().unwrap_or_default());
    let patch = Patch::Merge(status_patch(order.resource_version(), status));
    let (name, params) = (order.name_any(), PatchParams::apply(FIELD_MANAGER));
    interpret_write(order, &orders, tokio::time::timeout(CALL_TIMEOUT, orders.patch_status(&name, &params, &patch)).await?).await
}

/// Interprets the result of a write. After a conflict the order is read again. If it was deleted,
/// the caller must settle its charge, because no later pass does.
pub(super) async fn interpret_write(
    order: &OrderGuard,
    orders: &Api<OrderGuard>,
    result: kube::Result<OrderGuard>,
) -> Result<WriteResult, KubeError> {
    match result {
        Ok(updated) => Ok(WriteResult::Version(updated.resource_version())),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            tracing::info!(order = order.name_any(), "the order was deleted during the write");
            Ok(WriteResult::NotFound)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            let current = tokio::time::timeout(CALL_TIMEOUT, orders.get_opt(&order.name_any())).await??;
            if current.is_some_and(|current| current.meta().uid == order.meta().uid) {
                Err(kube::Error::Api(status).into())
            } else {
                Ok(WriteResult::NotFound)
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// A merge patch (RFC 7396) that applies only to this resource version. Null removes a
/// field that the status no longer has.
fn status_patch(resource_version: Option<String>, status: &OrderStatus) -> Value {
    let removed = ["adoptedFrom", "balance", "charge", "refunded", "resends", "retry"];
    let mut fields = Value::Object(removed.map(|field| (field.to_owned(), Value::Null)).into_iter().collect());
    if let (Value::Object(fields), Ok(Value::Object(present))) = (&mut fields, serde_json::to_value(status)) {
        fields.extend(present);
    }
    #[cfg(debug_assertions)]
    if orders_service::seeded_bugs::is_on("status-without-version") {
        return json!({ "status": fields });
    }
    json!({ "metadata": { "resourceVersion": resource_version }, "status": fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_the_status_no_longer_has_is_removed() {
        let patch = status_patch(Some("7".into()), &OrderStatus::default());
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let removed =
            json!({ "adoptedFrom": null, "balance": null, "charge": null, "refunded": null, "resends": null, "retry": null });
        assert_eq!(patch["status"], removed);
    }
}
