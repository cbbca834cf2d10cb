//! The messages: CloudEvents 1.0 in JSON, with data of these types.
//!
//! A type's version is the end of its name. Data may gain optional fields within
//! a version; anything else is another version.

use jiff::Timestamp;
use orders_crds::{EMail, Login, Money};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::topology::Service;

/// The data of a CloudEvent.
pub trait Event: Serialize + DeserializeOwned + JsonSchema {
    /// The CloudEvent's `type`.
    const TYPE: &'static str;

    /// The order's key, which is the CloudEvent's `subject`.
    fn key(&self) -> &str;
}

/// The operator wants an order paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRequested {
    /// The charge's key: the order's UID. A repeat is answered with the first outcome.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account to charge.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// Where the customer is to be told the outcome.
    #[schemars(with = "String", email, length(max = 254))]
    pub email: EMail,
    /// How much to charge: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
}

/// What became of a charge: final for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The money moved.
    Charged,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// It was closed before it could land.
    Closed,
}

/// An order was decided, and its customer is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// The charge's key: the order's UID. It is the customer's message's key as well.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// Where to tell the customer.
    #[schemars(with = "String", email, length(max = 254))]
    pub email: EMail,
    /// The order's amount: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
    /// What became of it.
    pub outcome: Outcome,
    /// The balance right after the charge or at the refusal: a decimal with two places; absent without an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub balance: Option<Money>,
}

/// How a customer's message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NotificationState {
    /// The mail server accepted it.
    Sent,
    /// It is stored and being tried.
    Delivering,
    /// It can never be delivered as it is.
    Undeliverable,
}

/// The state of a customer's message changed, or was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationChanged {
    /// The message's key: the order's UID.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// How it stands.
    pub state: NotificationState,
    /// Why it is not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub error: Option<String>,
}

impl Event for PaymentRequested {
    const TYPE: &'static str = "homework.arch.orders.payment.requested.v1";
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
    /// What makes a repeat of this very message known as one.
    pub id: String,
    /// Who says it: `/orders/billing`.
    pub source: String,
    /// What `data` is.
    #[serde(rename = "type")]
    pub type_: String,
    /// The order's key.
    pub subject: String,
    /// When it was said.
    pub time: Timestamp,
    /// `application/json`.
    pub datacontenttype: String,
    /// The data.
    pub data: T,
}

impl<E: Event> CloudEvent<E> {
    /// Says it, now, under this id.
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
    fn a_message_reads_as_a_cloud_event() {
        let data = NotificationChanged { key: "uid".into(), state: NotificationState::Sent, error: None };
        let event = serde_json::to_value(CloudEvent::new(Service::Notify, "id".into(), data)).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "homework.arch.orders.notification.changed.v1");
        assert_eq!((&event["source"], &event["subject"]), (&json!("/orders/notify"), &json!("uid")));
        assert_eq!(event["data"], json!({"key": "uid", "state": "Sent"}));
    }

    #[test]
    fn values_are_checked_as_they_are_read() {
        let good = json!({"key": "k", "login": "a", "email": "a@b.cd", "amount": "10.00"});
        assert!(serde_json::from_value::<PaymentRequested>(good.clone()).is_ok());
        for (field, bad) in
            [("login", json!("a b")), ("email", json!("nobody")), ("amount", json!(10)), ("amount", json!("1.001"))]
        {
            let mut event = good.clone();
            event[field] = bad;
            assert!(serde_json::from_value::<PaymentRequested>(event).is_err(), "{field}");
        }
    }
}
