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

/// The reason why the archive refuses a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", field.as_ref().map_or(String::new(), |field| format!("{field}: ")))]
pub struct Refused {
    /// The invalid field, if the reason is one field.
    pub field: Option<String>,
    /// The error in the field or in the resource.
    pub why: String,
}

impl Refused {
    /// Creates a refusal because of this field.
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Refused { field: Some(field.into()), why: why.into() }
    }

    /// Returns the refusal of the same resource as an element of a list. The field then begins with
    /// the index.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        let field = self.field.map_or_else(|| format!("[{index}]"), |field| format!("[{index}].{field}"));
        Refused { field: Some(field), ..self }
    }
}

impl Entry {
    /// Reads a resource. The entry also keeps the fields that this version does not know.
    ///
    /// # Errors
    /// [`Refused`], if the resource is not an order, is not decided yet, is larger than
    /// [`MAX_RESOURCE`], or lacks metadata that Kubernetes gives each resource.
    pub fn read(mut resource: Value) -> Result<Self, Refused> {
        // The managed fields record which client wrote which field. They are as long as the rest of
        // the resource, and of no use after the resource is removed.
        if let Some(metadata) = resource.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let text = resource.to_string();
        if text.len() > MAX_RESOURCE {
            return Err(Refused { field: None, why: format!("the order is larger than {MAX_RESOURCE} bytes") });
        }
        for (field, expected) in [("apiVersion", Order::api_version(&())), ("kind", Order::kind(&()))] {
            if resource[field] != *expected {
                return Err(Refused::field(field, format!("must be {expected}")));
            }
        }
        let order: Order = serde_path_to_error::deserialize(&resource).map_err(|error| {
            let field = error.path().to_string();
            Refused::field(field, error.into_inner().to_string())
        })?;
        let state = state(&order)?;
        Ok(Entry {
            uid: column("metadata.uid", order.metadata.uid.as_deref())?,
            namespace: column("metadata.namespace", order.metadata.namespace.as_deref())?,
            name: column("metadata.name", order.metadata.name.as_deref())?,
            id: order.spec.id,
            login: column("spec.login", Some(&order.spec.login))?,
            amount: order.spec.amount.parse().map_err(|error| Refused::field("spec.amount", format!("{error}")))?,
            state: column("status.conditions", Some(&state))?,
            created_at: created_at(&order)?,
            revision: revision(&order)?,
            resource: text,
        })
    }
}

/// Returns the outcome as the reason of the condition `Succeeded`. The archive stores only decided
/// orders, because the outcomes of other orders still change.
fn state(order: &Order) -> Result<String, Refused> {
    let succeeded = order.status.as_ref().and_then(|status| conditions::find(&status.conditions, ConditionType::Succeeded));
    match (order.outcome(), succeeded) {
        (Outcome::Paid | Outcome::Refused(_) | Outcome::Unknown, Some(condition)) => Ok(condition.reason.clone()),
        _ => Err(Refused::field("status.conditions", "the order is not decided yet")),
    }
}

fn created_at(order: &Order) -> Result<i64, Refused> {
    let created = order.creation_timestamp();
    created.map(|time| time.0.as_microsecond()).ok_or_else(|| Refused::field("metadata.creationTimestamp", "is missing"))
}

fn revision(order: &Order) -> Result<i64, Refused> {
    let version = order.resource_version().filter(|version| version.bytes().all(|byte| byte.is_ascii_digit()));
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| Refused::field("metadata.resourceVersion", "must be a whole number"))
}

fn column(field: &str, text: Option<&str>) -> Result<String, Refused> {
    let text = text.unwrap_or_default();
    if is_column(text) {
        Ok(text.to_owned())
    } else {
        Err(Refused::field(field, format!("must be 1 to {MAX_TEXT} visible ASCII characters")))
    }
}

/// Whether a column may contain this text. No order can be found by any other text, and PostgreSQL
/// does not accept zero bytes.
pub fn is_column(text: &str) -> bool {
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
        let entry = Entry::read(paid()).unwrap();
        assert_eq!(entry.uid, "b5f0c1d2-0000-4000-8000-000000000001");
        assert_eq!((&*entry.namespace, &*entry.name, entry.id), ("shop", "order-14", Some(14)));
        assert_eq!((&*entry.login, entry.amount, &*entry.state), ("Aurore56", Money::from_minor(10_050), "Paid"));
        assert_eq!((entry.created_at, entry.revision), (1_737_957_687_000_000, 1042));
    }

    #[test]
    fn all_of_the_resource_is_kept_but_its_managed_fields() {
        let kept: Value = serde_json::from_str(&Entry::read(paid()).unwrap().resource).unwrap();
        let mut expected = paid();
        expected["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(kept, expected, "also what this version does not know");
    }

    #[test]
    fn an_order_made_with_kubectl_has_no_number() {
        assert_eq!(Entry::read(with("/spec/id", Value::Null)).unwrap().id, None);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_and_the_field_is_named() {
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
            let refused = Entry::read(with(pointer, value.clone())).expect_err(pointer);
            let named = refused.field.as_deref().unwrap_or_default();
            assert!(named.starts_with(field), "{pointer} {value}: {refused}");
        }
        for no_order in [json!({}), json!([]), json!("order"), Value::Null] {
            assert!(Entry::read(no_order).is_err());
        }
    }

    #[test]
    fn an_order_that_is_not_decided_is_refused_and_one_that_was_given_back_is_not() {
        let outcome = |status: &str, reason: &str| {
            Entry::read(with(
                "/status/conditions",
                json!([{"type": "Succeeded", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2025-01-27T06:01:28Z"}]),
            ))
        };
        assert!(outcome("Unknown", "Processing").unwrap_err().why.contains("not decided"));
        assert_eq!(outcome("False", "InsufficientFunds").unwrap().state, "InsufficientFunds");
        assert_eq!(outcome("False", "AReasonOfTomorrow").unwrap().state, "AReasonOfTomorrow");
        assert!(Entry::read(with("/status", Value::Null)).is_err());
    }

    #[test]
    fn an_order_that_is_too_large_is_refused_for_what_is_kept_of_it_only() {
        let long = "x".repeat(MAX_RESOURCE);
        assert!(Entry::read(with("/metadata/annotations", json!({"a": long}))).unwrap_err().why.contains("larger than"));
        assert!(Entry::read(with("/metadata/managedFields", json!([{"manager": long}]))).is_ok());
    }

    #[test]
    fn a_refusal_in_a_list_names_the_place() {
        assert_eq!(Refused::field("kind", "no").at(3).to_string(), "[3].kind: no");
        assert_eq!(Refused { field: None, why: "too large".into() }.at(0).to_string(), "[0]: too large");
    }
}
