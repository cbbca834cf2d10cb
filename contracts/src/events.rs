//! The messages that the services exchange over the broker: CloudEvents 1.0 in JSON, with data of
//! these types.
//!
//! The name of an event type ends with its version. Within a version, data may gain optional fields
//! that a reader may ignore, and enumerations may gain values. A reader that does not know a value
//! makes the message a dead letter, to be replayed after an upgrade. Any other change requires a
//! new version.

use jiff::Timestamp;
use orders_crds::{EMail, Login, Money, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{billing::NewAuthorization, outcome, topology::Service};

/// The data of a CloudEvent.
pub trait Event: Serialize + DeserializeOwned + JsonSchema {
    /// The CloudEvent's `type`.
    const TYPE: &'static str;

    /// The order's key, which is the CloudEvent's `subject`.
    fn key(&self) -> &str;
}

/// The operator requests the charge of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRequested {
    /// The charge's key: the order's UID. A repeated request is answered with the first outcome.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account to charge.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// The address at which the customer is notified of the outcome.
    #[schemars(with = "String", email, length(max = 254))]
    pub email: EMail,
    /// The amount to charge: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
    /// The order that the charge is authorized for. Without this field, the charge is captured at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<NewAuthorization>,
}

/// The operator requests that a charge be closed, so that it can no longer be made. Billing replies
/// with the outcome of the charge in either case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloseRequested {
    /// The charge's key. A repeated request is answered with the first outcome.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account that was to be charged.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// The address at which the customer is notified, if the charge was made or refused before.
    #[schemars(with = "String", email, length(max = 254))]
    pub email: EMail,
    /// The amount that was to be charged: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
}

/// The operator requests the refund of a whole charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundRequested {
    /// The charge's key, which is also the refund's key. A repeated request is answered with the
    /// first outcome.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account that was charged.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// The amount that was charged: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
}

/// A charge was refunded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refunded {
    /// The charge's key.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// The amount that was refunded: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
    /// The balance right after the refund: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub balance: Money,
}

/// An order was decided, and its customer is to be notified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// In an event from billing, the charge's key. In an event from the operator, the key of the
    /// customer's message. The two keys are the same, except for a refund.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// The address at which the customer is notified.
    #[schemars(with = "String", email, length(max = 254))]
    pub email: EMail,
    /// The order's amount: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
    /// The outcome.
    #[serde(with = "outcome")]
    #[schemars(with = "outcome::WireOutcome")]
    pub outcome: Outcome,
    /// The balance right after the charge or at the refusal: a decimal with two places. Absent if
    /// there is no account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub balance: Option<Money>,
    /// How often the message was requested again after its delivery was given up.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 100))]
    pub resends: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// The delivery state of a customer's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NotificationState {
    /// The mail server accepted it.
    Sent,
    /// It is stored, and its delivery is being tried.
    Delivering,
    /// It can never be delivered.
    Undeliverable,
    /// Its delivery failed too often and was given up.
    DeadLettered,
    /// Any value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The state of a customer's message changed, or was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationChanged {
    /// The message's key.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The delivery state.
    pub state: NotificationState,
    /// The reason why the message is not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub error: Option<String>,
    /// How often the message had been requested again at that time.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 100))]
    pub resends: i32,
}

impl Event for PaymentRequested {
    const TYPE: &'static str = "homework.arch.orders.payment.requested.v1";
    fn key(&self) -> &str {
        &self.key
    }
}

impl Event for CloseRequested {
    const TYPE: &'static str = "homework.arch.orders.payment.close.requested.v1";
    fn key(&self) -> &str {
        &self.key
    }
}

impl Event for RefundRequested {
    const TYPE: &'static str = "homework.arch.orders.payment.refund.requested.v1";
    fn key(&self) -> &str {
        &self.key
    }
}

impl Event for Refunded {
    const TYPE: &'static str = "homework.arch.orders.payment.refunded.v1";
    fn key(&self) -> &str {
        &self.key
    }
}

impl Event for Decided {
    const TYPE: &'static str = "homework.arch.orders.decided.v1";
    fn key(&self) -> &str {
        &self.key
    }
}

impl Event for NotificationChanged {
    const TYPE: &'static str = "homework.arch.orders.notification.changed.v1";
    fn key(&self) -> &str {
        &self.key
    }
}

/// A CloudEvent in structured JSON (CloudEvents 1.0.2, JSON Event Format).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent<T> {
    /// `1.0`.
    pub specversion: String,
    /// Identifies this message, so that a duplicate is recognized.
    pub id: String,
    /// The service that sends the message, such as `/orders/billing`.
    pub source: String,
    /// The type of `data`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The order's key.
    pub subject: String,
    /// When the message was sent.
    pub time: Timestamp,
    /// `application/json`.
    pub datacontenttype: String,
    /// The data.
    pub data: T,
}

impl<E: Event> CloudEvent<E> {
    /// Creates an event from this source, with this id and the current time.
    pub fn new(source: Service, id: String, data: E) -> Self {
        CloudEvent {
            specversion: "1.0".to_owned(),
            id,
            source: format!("/orders/{}", source.name()),
            type_: E::TYPE.to_owned(),
            subject: data.key().to_owned(),
            time: Timestamp::now(),
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_serialized_as_a_cloud_event() {
        let data = NotificationChanged { key: "uid".into(), state: NotificationState::Sent, error: None, resends: 0 };
        let event = serde_json::to_value(CloudEvent::new(Service::Notify, "id".into(), data)).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "homework.arch.orders.notification.changed.v1");
        assert_eq!((&event["source"], &event["subject"]), (&json!("/orders/notify"), &json!("uid")));
        assert_eq!(event["data"], json!({"key": "uid", "state": "Sent"}));
    }

    #[test]
    fn an_outcome_of_a_newer_version_is_unknown() {
        let decided = |outcome: &str| {
            let data = json!({"key": "k", "login": "a", "email": "a@b.cd", "amount": "10.00", "outcome": outcome});
            serde_json::from_value::<Decided>(data).map(|decided| decided.outcome)
        };
        assert_eq!(decided("Charged").unwrap(), Outcome::Paid);
        assert_eq!(decided("AccountFrozen").unwrap(), Outcome::Unknown);
    }

    #[test]
    fn a_state_of_a_newer_version_is_unknown() {
        let changed = serde_json::from_value::<NotificationChanged>(json!({"key": "k", "state": "Bounced"})).unwrap();
        assert_eq!(changed.state, NotificationState::Unknown);
    }

    #[test]
    fn values_are_validated_as_they_are_deserialized() {
        let valid = json!({"key": "k", "login": "a", "email": "a@b.cd", "amount": "10.00"});
        assert!(serde_json::from_value::<PaymentRequested>(valid.clone()).is_ok());
        for (field, invalid) in
            [("login", json!("a b")), ("email", json!("nobody")), ("amount", json!(10)), ("amount", json!("1.001"))]
        {
            let mut event = valid.clone();
            event[field] = invalid;
            assert!(serde_json::from_value::<PaymentRequested>(event).is_err(), "{field}");
        }
    }
}
