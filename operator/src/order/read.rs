//! Reads an order for a pass: as a whole, or as much of it as can be parsed.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, Client, ResourceExt, api::DynamicObject, core::ApiResource};
use orders_crds::{Order, OrderSpec, OrderStatus};
use serde_json::Value;

use crate::kube::{CALL_TIMEOUT, KubeError, OrderGuard};

/// An order that is older than this when the operator first sees it may already be deleted. Before
/// such an order is charged, it is read again from the API server. A newer order is not read again,
/// because that would cost one request per order.
const FRESH: Duration = Duration::from_secs(2);

/// The parts of an order that could be parsed.
#[derive(Debug)]
pub struct Found {
    /// The spec, or why it cannot be parsed.
    pub spec: Result<OrderSpec, String>,
    /// The status.
    pub status: OrderStatus,
}

/// Returns the current order, or `None` if it is gone or another order has its name. An order that
/// may be out of date is read again from the API server. An order that does not parse as a whole is
/// parsed part by part: a status that cannot be parsed must not lead to the refusal of an order that
/// may already be paid.
///
/// # Errors
/// [`KubeError`], if the order has to be read again.
pub async fn read(order: &OrderGuard, client: &Client) -> Result<Option<Found>, KubeError> {
    match &order.0 {
        Ok(order) if order.status.is_some() || is_fresh(order) => {
            return Ok(Some(Found { spec: Ok(order.spec.clone()), status: order.status.clone().unwrap_or_default() }));
        }
        _ => {}
    }
    let resource = ApiResource::erase::<Order>(&());
    let orders: Api<DynamicObject> = Api::namespaced_with(client.clone(), &order.namespace().unwrap_or_default(), &resource);
    let object = tokio::time::timeout(CALL_TIMEOUT, orders.get_opt(&order.name_any())).await??;
    Ok(object.filter(|object| object.uid() == order.uid()).map(|object| parts(&object.data)))
}

fn is_fresh(order: &Order) -> bool {
    let age = order.creation_timestamp().map(|time| Timestamp::now().duration_since(time.0));
    age.is_some_and(|age| age.unsigned_abs() < FRESH)
}

/// Parses the spec and the status. If the status cannot be parsed, it is empty, or contains only
/// the conditions if the spec cannot be parsed either. With an empty status the charge is requested
/// again under the same key, and billing returns the first outcome.
fn parts(data: &Value) -> Found {
    let spec = serde_json::from_value(data["spec"].clone()).map_err(|error| format!("spec: {error}"));
    let status = serde_json::from_value(data["status"].clone());
    let status = status.unwrap_or_else(|_| match &spec {
        Ok(_) => OrderStatus::default(),
        Err(_) => OrderStatus {
            conditions: serde_json::from_value(data["status"]["conditions"].clone()).unwrap_or_default(),
            ..OrderStatus::default()
        },
    });
    Found { spec, status }
}

#[cfg(test)]
mod tests {
    use orders_crds::Outcome;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_does_not_parse_is_dropped_and_the_spec_kept() {
        let spec = json!({"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "5"});
        let Found { spec, status } = parts(&json!({"spec": spec, "status": {"balance": "n/a"}}));
        assert!(spec.is_ok());
        assert_eq!(status, OrderStatus::default(), "billing is asked again");
    }

    #[test]
    fn a_spec_that_does_not_parse_leaves_the_outcome_as_it_was() {
        let paid = json!({"type": "Succeeded", "status": "True", "reason": "Paid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let Found { spec, status } = parts(&json!({"spec": {"login": 7}, "status": {"balance": "n/a", "conditions": [paid]}}));
        assert!(spec.is_err());
        assert_eq!(status.outcome(), Outcome::Paid);
    }
}
