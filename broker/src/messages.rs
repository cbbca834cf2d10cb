//! The messages: CloudEvents 1.0 in JSON, with data of these types.
//!
//! A type's version is the end of its name. Within a version data may gain optional
//! fields that may be overlooked, and enumerations values: who does not know one
//! makes it a dead letter, to be replayed after an upgrade. Anything else is another version.

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

/// The operator wants a charge closed, so that it cannot land any more. What became of it is told either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloseRequested {
    /// The charge's key. A repeat is answered with the first outcome.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account that was to be charged.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// Where the customer is to be told, if it was charged or refused before.
    #[schemars(with = "String", email, length(max = 254))]
    pub email: EMail,
    /// How much was to be charged: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
}

/// The operator wants a charge given back, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundRequested {
    /// The charge's key, which is the refund's as well. A repeat is answered with the first outcome.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account that was charged.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// How much was charged: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
}

/// A charge was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refunded {
    /// The charge's key.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// The account.
    #[schemars(with = "String", regex(pattern = orders_crds::identity::LOGIN_PATTERN))]
    pub login: Login,
    /// How much was given back: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub amount: Money,
    /// The balance right after: a decimal with two places.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,12}\.[0-9]{2}$"))]
    pub balance: Money,
}

/// What became of an order. The first four are billing's, and final for a charge's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The money moved.
    Charged,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// It was closed before it could land: the order was cancelled.
    Closed,
    /// It was closed before it could land: the order's deadline had passed.
    DeadlineExceeded,
    /// It was given back: the order was cancelled after it was paid.
    Refunded,
}

/// An order was decided, and its customer is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// From billing the charge's key, from the operator the customer's message's: the same, but of a refund.
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
    /// How often the message was asked to be sent again after it had been given up.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 100))]
    pub resends: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Decided {
    /// The outcome as an order has it.
    pub fn outcome(&self) -> orders_crds::Outcome {
        use orders_crds::{Outcome as Of, Reason};
        match self.outcome {
            Outcome::Charged => Of::Paid,
            Outcome::InsufficientFunds => Of::Refused(Some(Reason::InsufficientFunds)),
            Outcome::AccountNotFound => Of::Refused(Some(Reason::AccountNotFound)),
            Outcome::Closed => Of::Refused(Some(Reason::Cancelled)),
            Outcome::DeadlineExceeded => Of::Refused(Some(Reason::DeadlineExceeded)),
            Outcome::Refunded => Of::Refused(Some(Reason::Refunded)),
        }
    }
}

impl Outcome {
    /// An order's outcome as it is told; `None` while there is none.
    pub fn of(outcome: orders_crds::Outcome) -> Option<Self> {
        use orders_crds::{Outcome as Of, Reason};
        Some(match outcome {
            Of::Undecided => return None,
            Of::Paid => Outcome::Charged,
            Of::Refused(Some(Reason::AccountNotFound)) => Outcome::AccountNotFound,
            Of::Refused(Some(Reason::Cancelled)) => Outcome::Closed,
            Of::Refused(Some(Reason::DeadlineExceeded)) => Outcome::DeadlineExceeded,
            Of::Refused(Some(Reason::Refunded)) => Outcome::Refunded,
            Of::Refused(_) => Outcome::InsufficientFunds,
        })
    }
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
    /// It was tried often enough in vain.
    DeadLettered,
}

/// The state of a customer's message changed, or was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationChanged {
    /// The message's key.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// How it stands.
    pub state: NotificationState,
    /// Why it is not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub error: Option<String>,
    /// How often it had been asked to be sent again by then.
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
        let data = NotificationChanged { key: "uid".into(), state: NotificationState::Sent, error: None, resends: 0 };
        let event = serde_json::to_value(CloudEvent::new(Service::Notify, "id".into(), data)).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "homework.arch.orders.notification.changed.v1");
        assert_eq!((&event["source"], &event["subject"]), (&json!("/orders/notify"), &json!("uid")));
        assert_eq!(event["data"], json!({"key": "uid", "state": "Sent"}));
    }

    #[test]
    fn outcomes_read_back() {
        use orders_crds::Reason;
        let reasons =
            [Reason::InsufficientFunds, Reason::AccountNotFound, Reason::Cancelled, Reason::DeadlineExceeded, Reason::Refunded];
        let refusals = reasons.map(|reason| orders_crds::Outcome::Refused(Some(reason)));
        for outcome in refusals.into_iter().chain([orders_crds::Outcome::Paid]) {
            let decided = Decided {
                key: "k".into(),
                login: "a".to_owned().try_into().unwrap(),
                email: "a@b.cd".to_owned().try_into().unwrap(),
                amount: Money::from_minor(1),
                outcome: Outcome::of(outcome).unwrap(),
                balance: None,
                resends: 0,
            };
            assert_eq!(decided.outcome(), outcome);
        }
        assert_eq!(Outcome::of(orders_crds::Outcome::Undecided), None);
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
