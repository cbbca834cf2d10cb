//! A real finished order, which is the template of the orders that the raw client writes.

use anyhow::{Context, Result, ensure};
use http::Request;
use kube::{Api, Client};
use orders_crds::Order;
use serde_json::{Value, json};
use uuid::Uuid;

/// The placeholder for the resource version to which a status patch applies.
const VERSION: &str = "@VERSION@";

/// The placeholder for the UID, while the prefix of the UID, which event names contain, is replaced.
const UID: &str = "@UID@";

/// The fields of an event that the operator sets. The API server sets the others.
const EVENT_FIELDS: [&str; 11] = [
    "apiVersion",
    "kind",
    "type",
    "reason",
    "action",
    "note",
    "eventTime",
    "regarding",
    "reportingController",
    "reportingInstance",
    "metadata",
];

/// The writes of one order, as text. The writes of another order differ only in their
/// numbers, so they have exactly the same size.
#[derive(Clone, Debug)]
pub struct OrderTemplate {
    create: String,
    status: String,
    events: Vec<String>,
    namespace: String,
    id: String,
    uid: String,
    login: String,
}

/// The numbers of a new order.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// The order's id. It has sixteen digits, as most ids that the api-server assigns.
    pub id: String,
    /// The login of the account, which is as long as the template's.
    pub login: String,
}

impl Numbers {
    /// Returns random numbers for an order of this account.
    pub fn new(login: &str) -> Self {
        // At most 2^53, as the api-server's ids; the first digit is not zero.
        let id = 1_000_000_000_000_000 + Uuid::new_v4().as_u128() % 8_000_000_000_000_000;
        Numbers { id: id.to_string(), login: login.to_owned() }
    }

    /// The resource's name.
    pub fn name(&self) -> String {
        format!("order-{}", self.id)
    }
}

impl OrderTemplate {
    /// Reads an order that the services have finished, and its events.
    ///
    /// # Errors
    /// If the order does not exist, or is not finished.
    pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let order = Api::<Order>::namespaced(client.clone(), namespace).get(name).await?;
        let events: Value = client
            .request(Request::get(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")).body(Vec::new())?)
            .await?;
        let events: Vec<Value> = events["items"].as_array().cloned().unwrap_or_default();
        Self::of(&order, &events, namespace)
    }

    fn of(order: &Order, events: &[Value], namespace: &str) -> Result<Self> {
        let status = order.status.as_ref().context("the template order has no status")?;
        let name = order.metadata.name.as_deref().unwrap_or_default();
        let uid = order.metadata.uid.clone().context("the template order has no UID")?;
        let id = order.spec.id.context("the template order has no number")?.to_string();
        ensure!(id.len() == 16, "the template order's number {id} is not of sixteen digits");
        // This is the request of the api-server.
        let create = serde_json::to_string(&Order::new(name, order.spec.clone()))?;
        // This is the patch of the operator, which removes fields that the status does not have.
        let mut fields = json!({"balance": null, "charge": null, "refunded": null, "resends": null, "retry": null});
        if let (Value::Object(fields), Value::Object(set)) = (&mut fields, serde_json::to_value(status)?) {
            fields.extend(set);
        }
        let status = json!({"metadata": {"resourceVersion": VERSION}, "status": fields}).to_string();
        let own = events.iter().filter(|event| event["regarding"]["uid"] == *uid);
        let events: Vec<String> = own.map(|event| operator_fields(event).to_string()).collect();
        let login = order.spec.login.clone();
        Ok(OrderTemplate { create, status, events, namespace: namespace.to_owned(), id, uid, login })
    }

    /// The number of events of an order.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// The body that creates an order.
    pub fn create_body(&self, numbers: &Numbers) -> Vec<u8> {
        self.insert_numbers(&self.create, numbers).into_bytes()
    }

    /// The status patch that finishes the order.
    pub fn status_patch(&self, numbers: &Numbers, uid: &str, version: &str) -> Vec<u8> {
        self.insert_numbers(&self.status, numbers).replace(VERSION, version).replace(&self.uid, uid).into_bytes()
    }

    /// The bodies that create the order's events, in this namespace.
    pub fn events(&self, numbers: &Numbers, uid: &str, namespace: &str) -> Vec<Vec<u8>> {
        let start = |uid: &str| uid.split('-').next().unwrap_or_default().to_owned();
        let namespace_field = |namespace: &str| format!(r#""namespace":"{namespace}""#);
        let write_event = |text: &String| {
            let text = self.insert_numbers(text, numbers).replace(&namespace_field(&self.namespace), &namespace_field(namespace));
            text.replace(&self.uid, UID).replace(&start(&self.uid), &start(uid)).replace(UID, uid).into_bytes()
        };
        self.events.iter().map(write_event).collect()
    }

    fn insert_numbers(&self, text: &str, numbers: &Numbers) -> String {
        text.replace(&self.id, &numbers.id).replace(&self.login, &numbers.login)
    }
}

/// The fields of an event that the operator wrote.
fn operator_fields(event: &Value) -> Value {
    let mut fields = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event"});
    for field in EVENT_FIELDS {
        if let Some(value) = event.get(field) {
            fields[field] = value.clone();
        }
    }
    fields["metadata"] = json!({"name": event["metadata"]["name"], "namespace": event["metadata"]["namespace"]});
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> OrderTemplate {
        let order = serde_json::from_value(json!({
            "apiVersion": "arch.homework/v1", "kind": "Order",
            "metadata": {"name": "order-1234567890123456", "uid": "0a1b2c3d-0000-4000-8000-000000000001", "resourceVersion": "7"},
            "spec": {"id": 1_234_567_890_123_456_i64, "login": "customer-000", "email": "customer-000@example.com", "cartId": 0, "amount": "1.00"},
            "status": {"charge": {"key": "0a1b2c3d-0000-4000-8000-000000000001", "amount": "1.00"}}
        }))
        .unwrap();
        let event = json!({
            "metadata": {"name": "order-1234567890123456.0a1b2c3d.paid", "namespace": "shop", "managedFields": []},
            "reason": "Paid", "deprecatedCount": 1,
            "regarding": {"name": "order-1234567890123456", "namespace": "shop", "uid": "0a1b2c3d-0000-4000-8000-000000000001"}
        });
        let other = json!({"regarding": {"uid": "x"}});
        OrderTemplate::of(&order, &[event, other], "shop").unwrap()
    }

    #[test]
    fn another_order_is_written_like_the_template_with_its_own_numbers() {
        let (template, uid) = (template(), "ffffffff-0000-4000-8000-000000000002");
        let numbers = Numbers { id: "6543210987654321".into(), login: "customer-017".into() };
        let create: Value = serde_json::from_slice(&template.create_body(&numbers)).unwrap();
        assert_eq!(create["metadata"]["name"], "order-6543210987654321");
        assert_eq!(create["spec"]["id"], 6_543_210_987_654_321_i64);
        assert_eq!(create["spec"]["email"], "customer-017@example.com");
        let status: Value = serde_json::from_slice(&template.status_patch(&numbers, uid, "42")).unwrap();
        assert_eq!((&status["metadata"]["resourceVersion"], &status["status"]["charge"]["key"]), (&json!("42"), &json!(uid)));
        assert!(status["status"].get("retry").is_some_and(Value::is_null), "removed, as by the operator");
        assert_eq!(template.event_count(), 1);
        let event: Value = serde_json::from_slice(&template.events(&numbers, uid, "raw")[0]).unwrap();
        assert_eq!(event["metadata"], json!({"name": "order-6543210987654321.ffffffff.paid", "namespace": "raw"}));
        assert_eq!(event["regarding"], json!({"name": "order-6543210987654321", "namespace": "raw", "uid": uid}));
        assert!(event.get("deprecatedCount").is_none(), "the API server's own");
    }

    #[test]
    fn numbers_have_sixteen_digits() {
        let numbers = Numbers::new("customer-000");
        assert_eq!((numbers.id.len(), numbers.name().len()), (16, 22));
        assert!(numbers.id.parse::<i64>().unwrap() < 1 << 53);
    }
}
