//! Parses orders as the public API shows them.

use jiff::Timestamp;
use orders_crds::{Money, money::json_number};
use serde::Deserialize;
use serde_json::Value;

/// An order, live or archived.
#[derive(Clone, Debug, Deserialize)]
pub struct Order {
    /// Its number. `None` for an order that was created with kubectl.
    pub id: Option<i64>,
    /// Name of its Kubernetes resource.
    pub name: String,
    /// Login of the customer.
    pub login: String,
    /// Address that the outcome is e-mailed to.
    pub e_mail: String,
    /// The amount of the order.
    #[serde(with = "json_number")]
    pub amount: Money,
    /// 1: paid. 0: refused. 2: not decided yet.
    pub status: u8,
    /// Reason for the status.
    pub reason: String,
    /// The account's balance right after the decision.
    pub balance: Option<Amount>,
    /// The refunded amount, if there is one.
    pub refunded: Option<Amount>,
    /// The number of the attempt to charge.
    pub attempt: i32,
    /// State of the customer's message.
    pub message_state: Option<String>,
    /// When it was placed.
    pub created: Option<Timestamp>,
    /// The history of the order, oldest entry first.
    pub history: Vec<HistoryEntry>,
    /// The namespace of its release. `None` if only one release was asked.
    #[serde(skip)]
    pub namespace: Option<String>,
    /// The complete response of the API, including fields that this version does not know.
    #[serde(skip)]
    pub json: Value,
}

/// The charge of an order, as the ledger has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Charge {
    /// The amount.
    #[serde(with = "json_number")]
    pub amount: Money,
    /// `Authorized`, `Captured` or `Voided`; absent if the charge was refused or closed.
    pub phase: Option<String>,
    /// The amount that was given back.
    #[serde(with = "json_number")]
    pub refunded: Money,
}

/// An amount of money, for fields that may be null.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Amount(#[serde(with = "json_number")] pub Money);

/// An entry of the history of an order.
#[derive(Clone, Debug, Deserialize)]
pub struct HistoryEntry {
    /// When it happened.
    pub time: String,
    /// The action.
    pub action: String,
    /// The reason for the result of the action.
    pub reason: String,
    /// The reason in words.
    pub message: String,
}

impl Order {
    /// The same order, shown with the namespace of its release.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self.json["namespace"] = namespace.into();
        self
    }

    /// Parses an order in the JSON of the API.
    ///
    /// # Errors
    /// If the JSON is not an order.
    pub fn parse(json: &str) -> serde_json::Result<Self> {
        Ok(Order { json: serde_json::from_str(json)?, ..serde_json::from_str(json)? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An order placed at noon, 7 May 2026, changed in these fields.
    pub(crate) fn order(changes: Value) -> Order {
        let mut order = serde_json::json!({
            "id": 14, "name": "order-14", "login": "Aurore56", "e_mail": "a@b.cd", "id_cart": 0, "amount": 99.95, "status": 1,
            "reason": "Paid", "message": "Charged.", "balance": 900.0, "refunded": null, "cancel_requested": false,
            "attempt": 1, "message_state": "Sent", "created": "2026-05-07T12:00:00Z",
            "history": [{"time": "2026-05-07T12:00:01Z", "action": "Charge", "reason": "Paid", "message": "Charged."}]
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            order[name] = value.clone();
        }
        Order::parse(&order.to_string()).unwrap()
    }

    #[test]
    fn an_order_is_parsed_exactly_and_unknown_fields_are_kept() {
        let order = order(serde_json::json!({"amount": 999999999999.99, "colour": "red"}));
        assert_eq!(order.amount, Money::MAX);
        assert_eq!((&order.json["colour"], order.json["amount"].to_string()), (&"red".into(), "999999999999.99".to_owned()));
    }

    #[test]
    fn json_without_the_fields_of_an_order_is_refused() {
        assert!(Order::parse(r#"{"id":14}"#).is_err());
    }
}
