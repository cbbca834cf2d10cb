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
const MAX_FRESH_AGE: Duration = Duration::from_secs(2);

/// The parts of an order that could be parsed.
#[derive(Debug)]
pub struct ParsedOrder {
    /// The spec, or why it cannot be parsed.
    pub spec: Result<OrderSpec, String>,
    /// The status.
    pub status: OrderStatus,
}

/// Returns the current order, or `None` if it was deleted or another order has its name. An order that
/// may be out of date is read again from the API server. An order that does not parse as a whole is
/// parsed part by part: a status that cannot be parsed must not lead to the refusal of an order that
/// may already be paid.
///
/// # Errors
/// [`KubeError`], if the order has to be read again.
pub async fn read(order: &OrderGuard, client: &Client) -> Result<Option<ParsedOrder>, KubeError> {
    if let Ok(order) = &order.0
        && (order.status.as_ref().is_some_and(|status| !status.is_pending()) || is_fresh(order))
    {
        return Ok(Some(ParsedOrder { spec: Ok(order.spec.clone()), status: order.status.clone().unwrap_or_default() }));
    }
    let resource = ApiResource::erase::<Order>(&());
    let orders: Api<DynamicObject> = Api::namespaced_with(client.clone(), &order.namespace().unwrap_or_default(), &resource);
    let object = tokio::time::timeout(CALL_TIMEOUT, orders.get_opt(&order.name_any())).await??;
    Ok(object.filter(|object| object.uid() == order.uid()).map(|object| parse(&object.data)))
}

fn is_fresh(order: &Order) -> bool {
    let age = order.creation_timestamp().map(|time| Timestamp::now().duration_since(time.0));
    age.is_some_and(|age| age.unsigned_abs() < MAX_FRESH_AGE)
}

/// Parses the spec and the status. If the status cannot be parsed, it is empty, or contains only
/// the conditions if the spec cannot be parsed either. With an empty status the charge is requested
/// again under the same key, and billing returns the first outcome.
fn parse(data: &Value) -> ParsedOrder {
    let spec = serde_json::from_value(data["spec"].clone()).map_err(|error| format!("spec: {error}"));
    let status = serde_json::from_value(data["status"].clone());
    let status = status.unwrap_or_else(|_| match &spec {
        Ok(_) => OrderStatus::default(),
        Err(_) => OrderStatus {
            conditions: serde_json::from_value(data["status"]["conditions"].clone()).unwrap_or_default(),
            ..OrderStatus::default()
        },
    });
    ParsedOrder { spec, status }
}

#[cfg(test)]
mod tests {
    use orders_crds::Outcome;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_does_not_parse_is_replaced_by_an_empty_one() {
        let spec = json!({"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "5"});
        let ParsedOrder { spec, status } = parse(&json!({"spec": spec, "status": {"balance": "n/a"}}));
        assert!(spec.is_ok());
        assert_eq!(status, OrderStatus::default(), "the request to billing is repeated");
    }

    #[test]
    fn a_spec_that_does_not_parse_does_not_change_the_outcome() {
        let paid = json!({"type": "Succeeded", "status": "True", "reason": "Paid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let ParsedOrder { spec, status } =
            parse(&json!({"spec": {"login": 7}, "status": {"balance": "n/a", "conditions": [paid]}}));
        assert!(spec.is_err());
        assert_eq!(status.outcome(), Outcome::Paid);
    }
}
