//! Deserializes an order from the API server, whether or not it parses.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use orders_crds::Order;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// An order that may fail to parse. A parse error must not stop the watch of the other orders.
///
/// kube's `DeserializeGuard` does the same for every kind, but builds a tree of all values
/// and clones it before it parses. Here the parts stay text until they are parsed, and the
/// managed fields, which are half of a stored order, are skipped.
#[derive(Clone, Debug)]
pub struct OrderGuard(pub Result<Order, InvalidObject>);

/// An order that does not parse as a whole.
#[derive(Clone, Debug)]
pub struct InvalidObject {
    /// The metadata, which can be parsed.
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default, deserialize_with = "Metadata::deserialize")]
    metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

/// All fields of an [`ObjectMeta`] except the managed fields.
#[derive(Deserialize)]
#[serde(remote = "ObjectMeta", rename_all = "camelCase")]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip)]
    managed_fields: Option<Vec<ManagedFieldsEntry>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    self_link: Option<String>,
    uid: Option<String>,
}

impl<'de> Deserialize<'de> for OrderGuard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, spec, status } = Parts::deserialize(deserializer)?;
        Ok(OrderGuard(match (parse(spec), parse(status)) {
            (Ok(Some(spec)), Ok(status)) => Ok(Order { metadata, spec, status }),
            _ => Err(InvalidObject { metadata }),
        }))
    }
}

fn parse<T: DeserializeOwned>(part: Option<Box<RawValue>>) -> serde_json::Result<Option<T>> {
    part.map_or(Ok(None), |part| serde_json::from_str(part.get()))
}

impl Resource for OrderGuard {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        Order::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        Order::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        Order::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        Order::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, Order::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, Order::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use kube::{ResourceExt, api::WatchEvent};
    use serde_json::json;

    use super::*;

    /// Parses an order from a watch event of the API server.
    fn watched(spec: serde_json::Value, status: serde_json::Value) -> OrderGuard {
        let order = json!({
            "apiVersion": "arch.homework/v1",
            "kind": "Order",
            "metadata": {
                "name": "order-1", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"], "labels": {"a": "b"},
                "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": spec,
            "status": status,
        });
        let event = serde_json::from_str(&format!(r#"{{"type":"ADDED","object":{order}}}"#)).unwrap();
        let WatchEvent::Added(order) = event else { panic!("{event:?}") };
        order
    }

    #[test]
    fn an_order_is_parsed_except_for_its_managed_fields() {
        let spec = json!({"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "5"});
        let order = watched(spec.clone(), json!({"balance": "1.00"})).0.unwrap();
        assert_eq!(serde_json::to_value(&order.spec).unwrap(), spec);
        assert!(order.status.as_ref().is_some_and(|status| status.balance.is_some()));
        let meta = serde_json::to_value(&order.metadata).unwrap();
        let expected = json!({
            "name": "order-1", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"], "labels": {"a": "b"},
        });
        assert_eq!(meta, expected);
    }

    #[test]
    fn an_order_that_does_not_parse_keeps_its_metadata() {
        let spec = json!({"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "5"});
        for (spec, status) in
            [(json!({"login": 7}), json!(null)), (spec.clone(), json!({"balance": ["n/a"]})), (json!(null), json!({}))]
        {
            let order = watched(spec, status);
            assert!(order.0.is_err());
            assert_eq!((order.name_any(), order.resource_version()), ("order-1".to_owned(), Some("7".to_owned())));
        }
        assert!(watched(spec, json!(null)).0.is_ok_and(|order| order.status.is_none()));
    }
}
