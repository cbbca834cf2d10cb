//! Reading an order for a pass: as a whole, or as much of it as can be parsed.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, Client, ResourceExt, api::DynamicObject, core::ApiResource};
use orders_crds::{Order, OrderSpec, OrderStatus};
use serde_json::Value;

use crate::kube::{CALL_TIMEOUT, KubeError, OrderGuard};

/// An order that is older than this when it is first seen may be gone by now: before it is
/// charged the API server is asked. One that is seen at once is not looked up, which would
/// cost every order a request.
const FRESH: Duration = Duration::from_secs(2);

/// What could be parsed of an order.
#[derive(Debug)]
pub struct Found {
    /// Its spec, or why it cannot be parsed.
    pub spec: Result<OrderSpec, String>,
    /// Its status.
    pub status: OrderStatus,
}

/// The order as it is; `None` if it is gone, or another one has its name. An order that may
/// be out of date is read anew. One that does not parse as a whole is parsed part by part: a
/// status that cannot be parsed must not turn into a refusal of what may be paid already.
///
/// # Errors
/// [`KubeError`], if it has to be looked up.
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

/// The spec, or why it cannot be parsed; and the status, or its conditions alone, or nothing.
/// Without a status billing is asked again, under the same key, and gives the first outcome.
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
