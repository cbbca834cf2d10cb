//! An archived order: the resource, and the columns that the archive derives from it.

use kube::{Resource, ResourceExt};
use orders_crds::{ConditionType, Money, Order, Outcome, conditions};
use serde_json::Value;

/// The maximum size of an archived resource, in bytes of JSON.
pub const MAX_RESOURCE: usize = 64 * 1024;

/// The maximum length of the text in a column other than the resource itself, in characters. It is
/// the maximum length of a name in Kubernetes.
pub const MAX_TEXT: usize = 253;

/// A finished order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// UID of the resource. It identifies the order.
    pub uid: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource. A later order may have the same name.
    pub name: String,
    /// The number that the REST API gave the order.
    pub id: Option<i64>,
    /// Login of the account.
    pub login: String,
    /// Amount of the order.
    pub amount: Money,
    /// Reason of the condition `Succeeded`.
    pub state: String,
    /// When the resource was created, in microseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// The resource version. Kubernetes documents that the resource versions of one type can be
    /// compared as integers.
    pub revision: i64,
    /// The resource as JSON, without its managed fields.
    pub resource: String,
}

/// The error of a resource that the archive cannot store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", field.as_ref().map_or(String::new(), |field| format!("{field}: ")))]
pub struct InvalidResource {
    /// The invalid field, if the error concerns one field.
    pub field: Option<String>,
    /// The reason why the field or the resource is invalid.
    pub reason: String,
}

impl InvalidResource {
    /// Creates the error of this field.
    pub fn in_field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        InvalidResource { field: Some(field.into()), reason: reason.into() }
    }

    /// Returns the error of the same resource as an element of a list. The field then begins with the
    /// index.
    #[must_use]
    pub fn at_index(self, index: usize) -> Self {
        let field = self.field.map_or_else(|| format!("[{index}]"), |field| format!("[{index}].{field}"));
        InvalidResource { field: Some(field), ..self }
    }
}

impl Entry {
    /// Creates the entry of a resource. The entry also contains the fields that this version does not know.
    ///
    /// # Errors
    /// [`InvalidResource`], if the resource is not an order, is not decided yet, is larger than
    /// [`MAX_RESOURCE`], or lacks metadata that Kubernetes gives each resource.
    pub fn from_resource(mut resource: Value) -> Result<Self, InvalidResource> {
        // The managed fields record which client wrote which field. They are as long as the rest of
        // the resource, and of no use after the resource is removed.
        if let Some(metadata) = resource.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let text = resource.to_string();
        if text.len() > MAX_RESOURCE {
            return Err(InvalidResource { field: None, reason: format!("the order is larger than {MAX_RESOURCE} bytes") });
        }
        for (field, expected) in [("apiVersion", Order::api_version(&())), ("kind", Order::kind(&()))] {
            if resource[field] != *expected {
                return Err(InvalidResource::in_field(field, format!("must be {expected}")));
            }
        }
        let order: Order = serde_path_to_error::deserialize(&resource).map_err(|error| {
            let field = error.path().to_string();
            InvalidResource::in_field(field, error.into_inner().to_string())
        })?;
        let state = state(&order)?;
        Ok(Entry {
            uid: column_value("metadata.uid", order.metadata.uid.as_deref())?,
            namespace: column_value("metadata.namespace", order.metadata.namespace.as_deref())?,
            name: column_value("metadata.name", order.metadata.name.as_deref())?,
            id: order.spec.id,
            login: column_value("spec.login", Some(&order.spec.login))?,
            amount: order.spec.amount.parse().map_err(|error| InvalidResource::in_field("spec.amount", format!("{error}")))?,
            state: column_value("status.conditions", Some(&state))?,
            created_at: created_at(&order)?,
            revision: revision(&order)?,
            resource: text,
        })
    }
}

/// Returns the outcome as the reason of the condition `Succeeded`. The archive stores only decided
/// orders, because the outcomes of other orders still change.
fn state(order: &Order) -> Result<String, InvalidResource> {
    let succeeded = order.status.as_ref().and_then(|status| conditions::find(&status.conditions, ConditionType::Succeeded));
    match (order.outcome(), succeeded) {
        (Outcome::Paid | Outcome::Refused(_) | Outcome::Unknown, Some(condition)) => Ok(condition.reason.clone()),
        (Outcome::Undecided, _) | (Outcome::Paid | Outcome::Refused(_) | Outcome::Unknown, None) => {
            Err(InvalidResource::in_field("status.conditions", "the order is not decided yet"))
        }
    }
}

fn created_at(order: &Order) -> Result<i64, InvalidResource> {
    let created = order.creation_timestamp();
    created
        .map(|time| time.0.as_microsecond())
        .ok_or_else(|| InvalidResource::in_field("metadata.creationTimestamp", "is missing"))
}

fn revision(order: &Order) -> Result<i64, InvalidResource> {
    let version = order.resource_version().filter(|version| version.bytes().all(|byte| byte.is_ascii_digit()));
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| InvalidResource::in_field("metadata.resourceVersion", "must be a whole number"))
}

fn column_value(field: &str, text: Option<&str>) -> Result<String, InvalidResource> {
    let text = text.unwrap_or_default();
    if is_valid_column_value(text) {
        Ok(text.to_owned())
    } else {
        Err(InvalidResource::in_field(field, format!("must be 1 to {MAX_TEXT} visible ASCII characters")))
    }
}

/// Whether a column may contain this text. No order can be found by any other text, and PostgreSQL
/// does not accept zero bytes.
pub fn is_valid_column_value(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paid() -> Value {
        json!({
            "apiVersion": "arch.homework/v1",
            "kind": "Order",
            "metadata": {
                "uid": "b5f0c1d2-0000-4000-8000-000000000001", "namespace": "shop", "name": "order-14",
                "creationTimestamp": "2025-01-27T06:01:27Z", "resourceVersion": "1042",
                "managedFields": [{"manager": "orders-operator", "operation": "Apply"}],
                "labels": {"from": "elsewhere"}
            },
            "spec": {"id": 14, "login": "Aurore56", "email": "a@example.com", "cartId": 0, "amount": "100.50"},
            "status": {"conditions": [
                {"type": "Succeeded", "status": "True", "reason": "Paid", "message": "", "lastTransitionTime": "2025-01-27T06:01:28Z"}
            ], "sinceThen": 7}
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut order = paid();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        order.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        order
    }

    #[test]
    fn columns_follow_from_the_resource() {
        let entry = Entry::from_resource(paid()).unwrap();
        assert_eq!(entry.uid, "b5f0c1d2-0000-4000-8000-000000000001");
        assert_eq!((&*entry.namespace, &*entry.name, entry.id), ("shop", "order-14", Some(14)));
        assert_eq!((&*entry.login, entry.amount, &*entry.state), ("Aurore56", Money::from_minor(10_050), "Paid"));
        assert_eq!((entry.created_at, entry.revision), (1_737_957_687_000_000, 1042));
    }

    #[test]
    fn the_whole_resource_is_stored_except_its_managed_fields() {
        let stored: Value = serde_json::from_str(&Entry::from_resource(paid()).unwrap().resource).unwrap();
        let mut expected = paid();
        expected["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(stored, expected, "also the fields that this version does not know");
    }

    #[test]
    fn an_order_made_with_kubectl_has_no_number() {
        assert_eq!(Entry::from_resource(with("/spec/id", Value::Null)).unwrap().id, None);
    }

    #[test]
    fn an_invalid_resource_is_refused_and_the_error_names_the_field() {
        for (pointer, value, field) in [
            ("/kind", json!("Pod"), "kind"),
            ("/apiVersion", json!("arch.homework/v2"), "apiVersion"),
            ("/metadata/uid", Value::Null, "metadata.uid"),
            ("/metadata/uid", json!(""), "metadata.uid"),
            ("/metadata/uid", json!("a\u{0}b"), "metadata.uid"),
            ("/metadata/namespace", Value::Null, "metadata.namespace"),
            ("/metadata/name", json!("a".repeat(254)), "metadata.name"),
            ("/metadata/creationTimestamp", Value::Null, "metadata.creationTimestamp"),
            ("/metadata/resourceVersion", Value::Null, "metadata.resourceVersion"),
            ("/metadata/resourceVersion", json!(""), "metadata.resourceVersion"),
            ("/metadata/resourceVersion", json!("1x"), "metadata.resourceVersion"),
            ("/metadata/resourceVersion", json!("-1"), "metadata.resourceVersion"),
            ("/metadata/resourceVersion", json!("+1"), "metadata.resourceVersion"),
            ("/metadata/resourceVersion", json!("9223372036854775808"), "metadata.resourceVersion"),
            ("/spec/login", json!("zwei Wörter"), "spec.login"),
            ("/spec/amount", json!("1.005"), "spec.amount"),
            ("/spec/amount", json!(100), "spec.amount"),
            ("/spec/id", json!("14"), "spec.id"),
            ("/status/conditions", json!([]), "status.conditions"),
            ("/status/conditions", json!([{"type": "Succeeded"}]), "status.conditions[0]"),
        ] {
            let error = Entry::from_resource(with(pointer, value.clone())).expect_err(pointer);
            let named = error.field.as_deref().unwrap_or_default();
            assert!(named.starts_with(field), "{pointer} {value}: {error}");
        }
        for not_an_order in [json!({}), json!([]), json!("order"), Value::Null] {
            assert!(Entry::from_resource(not_an_order).is_err());
        }
    }

    #[test]
    fn an_undecided_order_is_refused_and_a_refunded_order_is_not() {
        let outcome = |status: &str, reason: &str| {
            Entry::from_resource(with(
                "/status/conditions",
                json!([{"type": "Succeeded", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2025-01-27T06:01:28Z"}]),
            ))
        };
        assert!(outcome("Unknown", "Processing").unwrap_err().reason.contains("not decided"));
        assert_eq!(outcome("False", "InsufficientFunds").unwrap().state, "InsufficientFunds");
        assert_eq!(outcome("False", "AReasonOfTomorrow").unwrap().state, "AReasonOfTomorrow");
        assert!(Entry::from_resource(with("/status", Value::Null)).is_err());
    }

    #[test]
    fn the_size_limit_applies_to_the_resource_without_its_managed_fields() {
        let long = "x".repeat(MAX_RESOURCE);
        assert!(
            Entry::from_resource(with("/metadata/annotations", json!({"a": long}))).unwrap_err().reason.contains("larger than")
        );
        assert!(Entry::from_resource(with("/metadata/managedFields", json!([{"manager": long}]))).is_ok());
    }

    #[test]
    fn an_error_in_a_list_names_the_index() {
        assert_eq!(InvalidResource::in_field("kind", "no").at_index(3).to_string(), "[3].kind: no");
        assert_eq!(InvalidResource { field: None, reason: "too large".into() }.at_index(0).to_string(), "[0]: too large");
    }
}
