//! The `Order` and `Customer` custom resources and the types of their values.
//!
//! This crate does no I/O and uses no Kubernetes client, so its rules apply to an order from any
//! source.

#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod conditions;
pub mod customer;
pub mod identity;
pub mod money;
pub mod order;
pub mod outcome;

pub use conditions::{ConditionType, Reason};
pub use customer::{Customer, CustomerSpec, CustomerStatus};
pub use identity::{EMail, Login};
pub use money::Money;
pub use order::{Charge, HistoryEntry, Order, OrderSpec, OrderStatus, Retry, RetryStep};
pub use outcome::{Outcome, Refusal};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

/// The name of the Lease in each namespace with orders, whose holder is the ID of the ledger that charges
/// them.
pub const LEDGER_LEASE: &str = "orders-ledger";

/// The definitions of all resources, for installation in a cluster.
pub fn all() -> [CustomResourceDefinition; 2] {
    [Order::crd(), Customer::crd()].map(|mut definition| {
        let versions = definition.spec.versions.iter_mut();
        versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()).for_each(join_lines);
        definition
    })
}

/// Joins the lines of each paragraph of a description, as in Kubernetes' own types:
/// `kubectl explain` keeps line breaks, and breaks long lines as well.
fn join_lines(schema: &mut JSONSchemaProps) {
    if let Some(text) = &mut schema.description {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(join_lines);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        join_lines(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_documented_for_kubectl_explain() {
        fn check(schema: &serde_json::Value, path: &str) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                let is_root = ["apiVersion", "kind", "metadata"].contains(&name.as_str());
                assert!(is_root || field["description"].as_str().is_some_and(|text| text.len() > 8), "{path} has no description");
                let text = field["description"].as_str().unwrap_or_default();
                assert!(!text.replace("\n\n", "").contains('\n'), "{path}: a line break within a paragraph");
                check(field, &path);
                check(&field["items"], &format!("{path}[]"));
            }
        }
        for definition in all() {
            let definition = serde_json::to_value(definition).unwrap();
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default();
            check(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind);
        }
    }
}
