//! The `Order` resource: its spec, its status, its annotations and the keys that follow from it.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::{self, ConditionType, Reason},
    identity::{EMAIL_PATTERN, LOGIN_PATTERN},
    money::Money,
    outcome::{Outcome, Refusal},
};

/// The order as it was placed: the account, the amount and the customer's e-mail address.
/// The spec is immutable, except for cancelRequested and ttlSecondsAfterFinished.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "arch.homework",
    version = "v1",
    kind = "Order",
    plural = "orders",
    shortname = "ord",
    category = "shop",
    namespaced,
    status = "OrderStatus",
    derive = "PartialEq",
    doc = "An Order charges the customer's account once and notifies the customer of the outcome by e-mail. The outcome is the condition Succeeded in status.conditions.",
    selectable = ".spec.login",
    validation = Rule::new("oldSelf.hasValue() || !has(self.spec.id) || (self.metadata.name.matches('^order-[1-9][0-9]*$') && int(self.metadata.name.substring(6)) == self.spec.id)").message("spec.id belongs to the order that is named order-NUMBER: leave it out, as in a copy of an order").field_path(".spec.id").optional_old_self(true),
    printcolumn(name = "Login", type_ = "string", json_path = ".spec.login", description = "The account that is charged"),
    printcolumn(name = "Amount", type_ = "string", json_path = ".spec.amount", description = "The amount of the order"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason",
        description = "Pending, Processing, Paid, RefundPending, or why the order was refused"
    ),
    printcolumn(
        name = "Balance",
        type_ = "string",
        json_path = ".status.balance",
        description = "The account's balance right after the charge, the refund or the refusal"
    ),
    printcolumn(
        name = "Mail",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Notified\")].reason",
        description = "The state of the message to the customer"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.login == oldSelf.login && self.email == oldSelf.email && self.cartId == oldSelf.cartId && self.amount == oldSelf.amount && has(self.id) == has(oldSelf.id) && (!has(self.id) || self.id == oldSelf.id) && has(self.deadlineSeconds) == has(oldSelf.deadlineSeconds) && (!has(self.deadlineSeconds) || self.deadlineSeconds == oldSelf.deadlineSeconds)").message("spec is immutable: an order cannot be changed, make a new one; only cancelRequested and ttlSecondsAfterFinished may change"),
    validation = Rule::new("!has(oldSelf.cancelRequested) || !oldSelf.cancelRequested || (has(self.cancelRequested) && self.cancelRequested)").message("cancelRequested cannot be taken back: make a new order")
)]
pub struct OrderSpec {
    /// The number that the HTTP API assigned to the order, 1 to 9007199254740991 (2^53-1): the number
    /// in its name, order-NUMBER. Absent if the order was created with kubectl. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9007199254740991_i64))]
    pub id: Option<i64>,

    /// The login of the billing account that is charged: 1 to 64 ASCII letters, digits,
    /// '.', '_', '@', '+' or '-', starting with a letter or a digit. Immutable.
    #[schemars(length(min = 1, max = 64), regex(pattern = LOGIN_PATTERN))]
    pub login: String,

    /// The address that the outcome is e-mailed to: at most 254 characters, at most 64 of them
    /// before the @, and a domain with at least one dot. Immutable.
    #[schemars(length(min = 3, max = 254), regex(pattern = EMAIL_PATTERN))]
    #[x_kube(validation = Rule::new("self.indexOf('@') <= 64").message("email must have at most 64 characters before the @"))]
    pub email: String,

    /// The number of the cart that the order was made from, 0 to 9007199254740991 (2^53-1).
    /// Immutable.
    #[schemars(range(min = 0, max = 9007199254740991_i64))]
    pub cart_id: i64,

    /// The amount to charge, greater than zero: a decimal with at most two places and at most
    /// twelve digits before the point. It is a string so that it stays exact, for example "100.00".
    /// Immutable.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?$"))]
    #[x_kube(validation = Rule::new("self.matches('[1-9]')").message("amount must be greater than zero"))]
    pub amount: String,

    /// Set this to true to cancel the order. Once it is true, it cannot be changed. An order that
    /// is not charged yet will never be charged. If the order is charged, the whole charge is
    /// refunded, once. A refused order stays refused and can no longer be retried.
    /// Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested: Option<bool>,

    /// The number of seconds after the order's creation within which the charge must begin,
    /// 1 to 31536000 (one year). If it does not, the order is refused with the reason
    /// DeadlineExceeded. A retry has the same deadline. If not set, there is no deadline. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub deadline_seconds: Option<i64>,

    /// The number of seconds after which the resource of a finished order is removed, 0 to 31536000
    /// (one year). An order is finished when it is decided, no request is pending, and its message
    /// was sent or given up. The resource is removed no earlier than 15 seconds after the archive
    /// stored it, and the HTTP API shows the order as before. This field can be changed at any time.
    /// Defaults to the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_SECONDS))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// The longest deadline and the longest retention, in seconds: one year.
pub const MAX_SECONDS: i64 = 31_536_000;

/// The maximum number of entries in the history of a status.
pub const MAX_HISTORY: usize = 16;

/// The annotation that requests another attempt to charge a refused order. Its value is the number
/// of the requested attempt, counted from 1. `status.attempt` has the number of the current attempt.
pub const ATTEMPT_ANNOTATION: &str = "arch.homework/attempt";

/// The annotation that requests that a message that could not be delivered be sent again. Its value
/// is the number of resends requested so far. `status.resends` has the number of resends made.
pub const RESEND_ANNOTATION: &str = "arch.homework/resend";

/// Returns the number in one of these annotations, 1 to [`MAX_ATTEMPTS`]. Any other value requests nothing:
/// the result is 0.
pub fn parse_annotation(metadata: &ObjectMeta, annotation: &str) -> i32 {
    let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    let number = text.and_then(|text| text.parse().ok());
    number.filter(|number| (0..=MAX_ATTEMPTS).contains(number)).unwrap_or(0)
}

/// The finalizer of an order whose charge is unknown or whose refund is pending. If such an order is
/// deleted, it is first cancelled and its customer notified. The HTTP API adds it with a cancellation.
pub const FINALIZER: &str = "arch.homework/charge-unknown";

/// The observed state of the order. Only the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = pending_status()))]
pub struct OrderStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Succeeded is the outcome: Unknown while the order is processed, then True (paid) or False
    /// (refused or refunded). After that it changes only if the order is cancelled or retried.
    /// Decided is True once the outcome is known, so that a client can wait for either outcome.
    /// Paid shows whether the account was charged. Notified shows whether the mail server accepted
    /// the message to the customer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The account's balance right after the charge, the refund or the refusal: a decimal with two
    /// places, as a string. Absent while the order is not decided, and if the account does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub balance: Option<Money>,

    /// The charge that billing recorded. Absent if nothing was charged. A refund does not remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,

    /// How much of the charge was refunded: a decimal with two places, as a string.
    /// Absent if nothing was refunded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub refunded: Option<Money>,

    /// The number of the current attempt to charge, 1 to 100. Absent on the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    pub attempt: Option<i32>,

    /// How often the customer's message was sent again on request, 0 to 100. Absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_ATTEMPTS))]
    pub resends: Option<i32>,

    /// The UID of the archived order whose outcome this order took over, because it has the same name
    /// and the same spec. Its charge and its messages are those of that order. Absent if the order has
    /// an outcome of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub adopted_from: Option<String>,

    /// What happened to the order, oldest first: the first entry and the latest fifteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub history: Vec<HistoryEntry>,

    /// The step that failed and the time of its next attempt. Absent while no step fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// The status of an order that the operator has not handled yet. It is the default in the CRD, as in
/// the Gateway API: tools such as kstatus take an object without conditions for complete.
fn pending_status() -> serde_json::Value {
    let pending = |kind: ConditionType| {
        serde_json::json!({
            "type": kind.as_str(),
            "status": conditions::status_str(None),
            "reason": Reason::Pending.as_str(),
            "message": "The operator has not handled the order yet.",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    serde_json::json!({ "conditions": [pending(ConditionType::Succeeded), pending(ConditionType::Decided)] })
}

/// A charge that billing recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    /// The idempotency key of the charge in billing: the order's UID. From the second attempt on,
    /// a dot and the number of the attempt follow.
    pub key: String,

    /// The amount charged: a decimal with two places, as a string.
    #[schemars(with = "String")]
    pub amount: Money,
}

/// An event in the history of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When it happened.
    pub time: Time,

    /// The operator's action: Charge, Cancel, Refund, Void, Adopt, Notify, Read, Retry or Resend.
    #[schemars(length(max = 64))]
    pub action: String,

    /// The reason for the result of the action: one of the reasons of the conditions.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// A description of the event, at most 512 characters.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// The highest number of an attempt to charge, and of a resend.
pub const MAX_ATTEMPTS: i32 = 100;

/// A step that failed and is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The step that failed.
    pub step: RetryStep,

    /// How many times in a row the step failed.
    #[schemars(range(min = 1))]
    pub attempts: i32,

    /// The time of the next attempt.
    pub next_attempt_time: MicroTime,

    /// The error of the last attempt, at most 1024 characters.
    #[schemars(length(max = 1024))]
    pub last_error: String,
}

/// The step of an order that a retry repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryStep {
    /// Billing charges the account.
    Payment,
    /// Billing closes the charge, so that it can no longer be made.
    Cancellation,
    /// Billing refunds the charge.
    Refund,
    /// Notify delivers the message to the customer.
    Notification,
}

impl OrderSpec {
    /// Whether both are the same order: the same account, address, cart and amount, under the same
    /// number and with the same deadline. Whether an order is cancelled, and how long its resource
    /// stays, does not count.
    pub fn is_same_order(&self, other: &OrderSpec) -> bool {
        let amount = |spec: &OrderSpec| Money::positive(&spec.amount).ok();
        let fields = |spec: &OrderSpec| (spec.id, spec.cart_id, spec.deadline_seconds);
        (&self.login, &self.email, fields(self)) == (&other.login, &other.email, fields(other))
            && amount(self).is_some()
            && amount(self) == amount(other)
    }
}

impl Order {
    /// The UID that the keys of the order's charges and messages begin with: its own, or that of the
    /// order whose outcome it took over. Empty if the resource has no UID.
    pub fn key_uid(&self) -> &str {
        let adopted = self.status.as_ref().and_then(|status| status.adopted_from.as_deref());
        adopted.or(self.metadata.uid.as_deref()).unwrap_or_default()
    }

    /// The outcome so far. An order without a status is undecided.
    pub fn outcome(&self) -> Outcome {
        self.status.as_ref().map_or(Outcome::Undecided, OrderStatus::outcome)
    }
}

impl OrderStatus {
    /// The outcome so far. It can change after the customer was notified: a paid order may be
    /// refunded, and a refused order may be charged again.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(&self.conditions)
    }

    /// Whether the operator has not handled the order yet.
    pub fn is_pending(&self) -> bool {
        conditions::find(&self.conditions, ConditionType::Succeeded)
            .is_none_or(|condition| condition.reason == Reason::Pending.as_str())
    }

    /// Whether the mail server accepted the customer's message.
    pub fn is_notified(&self) -> bool {
        conditions::find(&self.conditions, ConditionType::Notified).is_some_and(|condition| condition.status == "True")
    }

    /// Whether the customer's message needs no further step: it was sent or given up.
    pub fn is_notification_final(&self) -> bool {
        self.is_notified() || self.is_undeliverable()
    }

    /// Whether the customer's message was given up. It is sent again only on request.
    pub fn is_undeliverable(&self) -> bool {
        let undeliverable = [Reason::Undeliverable.as_str(), Reason::DeadLettered.as_str()];
        conditions::find(&self.conditions, ConditionType::Notified)
            .is_some_and(|condition| undeliverable.contains(&condition.reason.as_str()))
    }

    /// Whether billing may hold a charge that the status does not show, or owes a refund. An
    /// outcome of a newer version is not open: that version has settled it, or will.
    pub fn is_charge_open(&self) -> bool {
        match self.outcome() {
            Outcome::Undecided => true,
            Outcome::Paid | Outcome::Refused(_) | Outcome::Unknown => {
                conditions::find(&self.conditions, ConditionType::Succeeded)
                    .is_some_and(|condition| condition.reason == Reason::RefundPending.as_str())
            }
        }
    }

    /// Whether the customer is still to be notified of the outcome. An order that cannot be read has
    /// no customer to notify.
    pub fn is_message_open(&self) -> bool {
        let has_message = match self.outcome() {
            Outcome::Paid => true,
            Outcome::Refused(refusal) => refusal != Refusal::InvalidOrder,
            Outcome::Undecided | Outcome::Unknown => false,
        };
        has_message && !self.is_notification_final()
    }

    /// The number of the current attempt to charge, counted from 1.
    pub fn attempt(&self) -> i32 {
        self.attempt.unwrap_or(1)
    }

    /// Adds an entry to the history. Of more than [`MAX_HISTORY`] entries, only the first and the
    /// latest are kept.
    pub fn push_history(&mut self, entry: HistoryEntry) {
        self.history.push(entry);
        if self.history.len() > MAX_HISTORY {
            self.history.remove(1);
        }
    }
}

/// The idempotency key under which billing records the charge of an attempt: the order's UID. From
/// the second attempt on, a dot and the number of the attempt follow. A refund has the key of its
/// charge.
pub fn charge_key(uid: &str, attempt: i32) -> String {
    if attempt <= 1 { uid.to_owned() } else { format!("{uid}.{attempt}") }
}

/// The key of the customer's message about an outcome. A message about a charge or a refusal has the
/// charge's key. The message about a refund has the charge's key with the suffix `.refunded`.
pub fn message_key(charge_key: &str, outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(Refusal::Refunded) => format!("{charge_key}.refunded"),
        Outcome::Paid
        | Outcome::Refused(
            Refusal::InsufficientFunds
            | Refusal::AccountNotFound
            | Refusal::Cancelled
            | Refusal::DeadlineExceeded
            | Refusal::AlreadyExists
            | Refusal::InvalidOrder,
        )
        | Outcome::Undecided
        | Outcome::Unknown => charge_key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_pending_until_the_operator_handles_it() {
        let mut status: OrderStatus = serde_json::from_value(pending_status()).unwrap();
        assert!(status.is_pending() && OrderStatus::default().is_pending());
        assert_eq!(status.outcome(), Outcome::Undecided);
        let now = jiff::Timestamp::UNIX_EPOCH;
        conditions::set(&mut status.conditions, ConditionType::Succeeded, None, Reason::Processing, String::new(), None, now);
        assert!(!status.is_pending());
    }

    fn status(conditions: &[(ConditionType, Option<bool>, Reason)]) -> OrderStatus {
        let mut status = OrderStatus::default();
        for (kind, state, reason) in conditions {
            let now = jiff::Timestamp::UNIX_EPOCH;
            conditions::set(&mut status.conditions, *kind, *state, *reason, String::new(), None, now);
        }
        status
    }

    #[test]
    fn the_outcome_and_the_open_steps_follow_from_the_conditions() {
        use ConditionType::{Notified, Succeeded};
        // (conditions, outcome, is the charge open, is the message open, is it notified, is the message given up)
        for (conditions, outcome, charge, message, notified, given_up) in [
            (vec![], Outcome::Undecided, true, false, false, false),
            (vec![(Succeeded, None, Reason::Processing)], Outcome::Undecided, true, false, false, false),
            (vec![(Succeeded, Some(true), Reason::Paid)], Outcome::Paid, false, true, false, false),
            (vec![(Succeeded, Some(true), Reason::RefundPending)], Outcome::Paid, true, true, false, false),
            (
                vec![(Succeeded, Some(true), Reason::Paid), (Notified, Some(true), Reason::Sent)],
                Outcome::Paid,
                false,
                false,
                true,
                false,
            ),
            (
                vec![(Succeeded, Some(true), Reason::Paid), (Notified, Some(false), Reason::Delivering)],
                Outcome::Paid,
                false,
                true,
                false,
                false,
            ),
            (
                vec![(Succeeded, Some(false), Reason::InsufficientFunds), (Notified, Some(false), Reason::DeadLettered)],
                Outcome::Refused(Refusal::InsufficientFunds),
                false,
                false,
                false,
                true,
            ),
            (
                vec![(Succeeded, Some(false), Reason::Cancelled), (Notified, Some(false), Reason::Undeliverable)],
                Outcome::Refused(Refusal::Cancelled),
                false,
                false,
                false,
                true,
            ),
            (
                vec![(Succeeded, Some(false), Reason::InvalidOrder)],
                Outcome::Refused(Refusal::InvalidOrder),
                false,
                false,
                false,
                false,
            ),
            // A condition that a version with an additional reason would write.
            (vec![(Succeeded, Some(false), Reason::Processing)], Outcome::Unknown, false, false, false, false),
        ] {
            let status = status(&conditions);
            assert_eq!(status.outcome(), outcome, "{conditions:?}");
            assert_eq!((status.is_charge_open(), status.is_message_open()), (charge, message), "{conditions:?}");
            assert_eq!((status.is_notified(), status.is_undeliverable()), (notified, given_up), "{conditions:?}");
            assert_eq!(status.is_notification_final(), notified || given_up, "{conditions:?}");
            let order = Order { status: Some(status), ..Order::new("o", OrderSpec::default()) };
            assert_eq!(order.outcome(), outcome, "{conditions:?}");
        }
    }

    #[test]
    fn the_history_keeps_its_first_entry_and_the_latest() {
        let mut status = OrderStatus::default();
        let entry = |number: usize| HistoryEntry {
            time: Time(jiff::Timestamp::UNIX_EPOCH),
            action: "Charge".to_owned(),
            reason: "Paid".to_owned(),
            message: number.to_string(),
        };
        (0..MAX_HISTORY).for_each(|number| status.push_history(entry(number)));
        assert_eq!(status.history, (0..MAX_HISTORY).map(entry).collect::<Vec<_>>(), "all entries, up to the maximum");
        (MAX_HISTORY..40).for_each(|number| status.push_history(entry(number)));
        let expected: Vec<HistoryEntry> = std::iter::once(0).chain(25..40).map(entry).collect();
        assert_eq!(status.history, expected);
    }

    #[test]
    fn keys_follow_from_the_order_its_attempt_and_its_outcome() {
        assert_eq!([0, 1, 2, 11].map(|attempt| charge_key("uid", attempt)), ["uid", "uid", "uid.2", "uid.11"]);
        assert_eq!(message_key("uid.2", Outcome::Paid), "uid.2");
        assert_eq!(message_key("uid", Outcome::Refused(Refusal::InsufficientFunds)), "uid");
        assert_eq!(message_key("uid", Outcome::Refused(Refusal::Refunded)), "uid.refunded");
        assert_eq!(OrderStatus::default().attempt(), 1);
        assert_eq!(OrderStatus { attempt: Some(3), ..OrderStatus::default() }.attempt(), 3);
    }

    #[test]
    fn an_order_is_the_same_if_its_immutable_fields_are() {
        let spec = || OrderSpec {
            id: Some(1),
            login: "a".into(),
            email: "a@b.cd".into(),
            cart_id: 2,
            amount: "5".into(),
            deadline_seconds: Some(3),
            ..OrderSpec::default()
        };
        for same in [
            spec(),
            OrderSpec { amount: "5.00".into(), ..spec() },
            OrderSpec { cancel_requested: Some(true), ttl_seconds_after_finished: Some(0), ..spec() },
        ] {
            assert!(spec().is_same_order(&same), "{same:?}");
        }
        for other in [
            OrderSpec { id: None, ..spec() },
            OrderSpec { login: "b".into(), ..spec() },
            OrderSpec { email: "b@b.cd".into(), ..spec() },
            OrderSpec { cart_id: 3, ..spec() },
            OrderSpec { amount: "5.01".into(), ..spec() },
            OrderSpec { deadline_seconds: None, ..spec() },
        ] {
            assert!(!spec().is_same_order(&other), "{other:?}");
        }
        let unreadable = OrderSpec { amount: "x".into(), ..spec() };
        assert!(!unreadable.is_same_order(&unreadable));
    }

    #[test]
    fn an_order_that_took_over_an_outcome_has_the_keys_of_the_first() {
        let mut order = Order::new("o", OrderSpec::default());
        assert_eq!(order.key_uid(), "");
        order.metadata.uid = Some("second".into());
        assert_eq!(order.key_uid(), "second");
        order.status = Some(OrderStatus { adopted_from: Some("first".into()), ..OrderStatus::default() });
        assert_eq!(order.key_uid(), "first");
    }

    #[test]
    fn an_annotation_requests_a_number_within_its_bounds() {
        let parse = |text: &str| {
            let annotations = Some([(ATTEMPT_ANNOTATION.to_owned(), text.to_owned())].into());
            parse_annotation(&ObjectMeta { annotations, ..ObjectMeta::default() }, ATTEMPT_ANNOTATION)
        };
        assert_eq!(["0", "1", "100", "101", "-1", "x", ""].map(parse), [0, 1, 100, 0, 0, 0, 0]);
        assert_eq!(parse_annotation(&ObjectMeta::default(), ATTEMPT_ANNOTATION), 0);
    }

    #[test]
    fn a_spec_without_optional_fields_is_read() {
        let spec: OrderSpec = serde_json::from_str(r#"{"login":"a","email":"a@b.cd","cartId":1,"amount":"5"}"#).unwrap();
        assert_eq!(spec.id, None);
    }
}
