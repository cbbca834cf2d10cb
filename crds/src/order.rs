//! The `Order` resource.

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

/// What was ordered, by whom, for how much. It cannot be changed once the order
/// exists, but for cancelRequested and ttlSecondsAfterFinished.
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
    doc = "An order: it is charged once to the customer's account, and the customer is told the outcome by e-mail. The outcome is in status.conditions, type Succeeded.",
    selectable = ".spec.login",
    printcolumn(name = "Login", type_ = "string", json_path = ".spec.login", description = "The account that is charged"),
    printcolumn(name = "Amount", type_ = "string", json_path = ".spec.amount", description = "The amount of the order"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason",
        description = "Processing, Paid, or why the order was refused"
    ),
    printcolumn(
        name = "Balance",
        type_ = "string",
        json_path = ".status.balance",
        description = "The account's balance right after the decision"
    ),
    printcolumn(
        name = "Mail",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Notified\")].reason",
        description = "What became of the message to the customer"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.login == oldSelf.login && self.email == oldSelf.email && self.cartId == oldSelf.cartId && self.amount == oldSelf.amount && has(self.id) == has(oldSelf.id) && (!has(self.id) || self.id == oldSelf.id) && has(self.deadlineSeconds) == has(oldSelf.deadlineSeconds) && (!has(self.deadlineSeconds) || self.deadlineSeconds == oldSelf.deadlineSeconds)").message("spec is immutable: an order cannot be changed, make a new one; only cancelRequested and ttlSecondsAfterFinished may change"),
    validation = Rule::new("!has(oldSelf.cancelRequested) || !oldSelf.cancelRequested || (has(self.cancelRequested) && self.cancelRequested)").message("cancelRequested cannot be taken back: make a new order")
)]
pub struct OrderSpec {
    /// The number that the REST API gave this order. Absent on orders made with kubectl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9007199254740991_i64))]
    pub id: Option<i64>,

    /// Login of the billing account that is charged.
    #[schemars(length(min = 1, max = 64), regex(pattern = LOGIN_PATTERN))]
    pub login: String,

    /// Address that the outcome is e-mailed to.
    #[schemars(length(min = 3, max = 254), regex(pattern = EMAIL_PATTERN))]
    #[x_kube(validation = Rule::new("self.indexOf('@') <= 64").message("email must have at most 64 characters before the @"))]
    pub email: String,

    /// Number of the cart that the order was made from.
    #[schemars(range(min = 0, max = 9007199254740991_i64))]
    pub cart_id: i64,

    /// Amount to charge: a positive decimal with at most two places and at most
    /// twelve digits before the point, as a string so that it stays exact, e.g. "100.00".
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?$"))]
    #[x_kube(validation = Rule::new("self.matches('[1-9]')").message("amount must be greater than zero"))]
    pub amount: String,

    /// Set it to true to cancel the order; it cannot be taken back.
    /// What is not charged yet never will be; a charge is given back, once.
    /// An order that was refused stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested: Option<bool>,

    /// The charge is begun within so many seconds of the order's creation,
    /// or the order is refused (DeadlineExceeded). No limit if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub deadline_seconds: Option<i64>,

    /// The resource is removed so many seconds after the order is finished,
    /// once the archive has it; the REST API shows it as before.
    /// If not set, the operator's own setting counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_SECONDS))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// The longest deadline and the longest retention: a year, in seconds.
pub const MAX_SECONDS: i64 = 31_536_000;

/// The most entries that a status keeps of its history.
pub const MAX_HISTORY: usize = 16;

/// The annotation that asks for a refused order to be charged again: the number of
/// the attempt, counted from 1; `status.attempt` has the current one.
pub const ATTEMPT_ANNOTATION: &str = "arch.homework/attempt";

/// The annotation that asks for a message that could not be delivered to be sent
/// again: how often it was asked for; `status.resends` has how often it was done.
pub const RESEND_ANNOTATION: &str = "arch.homework/resend";

/// The number in one of these annotations; anything else there asks for nothing: 0.
pub fn asked_for(metadata: &ObjectMeta, annotation: &str) -> i32 {
    let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    let number = text.and_then(|text| text.parse().ok());
    number.filter(|number| (0..=MAX_ATTEMPTS).contains(number)).unwrap_or(0)
}

/// The finalizer of an order whose charge is not known, so that deleting it cancels it and has its customer told first.
pub const FINALIZER: &str = "arch.homework/charge-unknown";

/// What became of the order so far. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Succeeded is the outcome (Unknown while working, then True or False for good);
    /// Paid and Notified are the steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Balance of the account right after the charge, or when it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub balance: Option<Money>,

    /// The charge, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,

    /// How much of the charge was given back, once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub refunded: Option<Money>,

    /// The number of the attempt to charge, if it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    pub attempt: Option<i32>,

    /// How often the customer's message was sent again on request, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_ATTEMPTS))]
    pub resends: Option<i32>,

    /// What happened, oldest first; the first entry and the latest fifteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub history: Vec<HistoryEntry>,

    /// What fails at the moment and when it is tried again. Absent while nothing fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// A charge as billing recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    /// Key under which billing keeps the charge: the order's UID.
    pub key: String,

    /// The amount charged.
    #[schemars(with = "String")]
    pub amount: Money,
}

/// Something that happened to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When.
    pub time: Time,

    /// What the operator was doing: Charge, Cancel, Refund, Notify, Read, Retry or Resend.
    #[schemars(length(max = 64))]
    pub action: String,

    /// Why it went as it did: as in the conditions.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// In words.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// The highest number of an attempt or a resend.
pub const MAX_ATTEMPTS: i32 = 100;

/// A step that failed and will be tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The step that is tried again.
    pub step: RetryStep,

    /// How often it was tried in vain so far.
    #[schemars(range(min = 1))]
    pub attempts: i32,

    /// It is tried again at this time.
    pub next_attempt_time: MicroTime,

    /// What went wrong the last time.
    #[schemars(length(max = 1024))]
    pub last_error: String,
}

/// The step of an order that a retry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryStep {
    /// Asking billing for the charge.
    Payment,
    /// Asking billing to close the charge, so that it cannot land any more.
    Cancellation,
    /// Asking billing to give the charge back.
    Refund,
    /// Having the customer told.
    Notification,
}

impl OrderStatus {
    /// Whether the mail server has the customer's message.
    pub fn is_notified(&self) -> bool {
        conditions::find(&self.conditions, ConditionType::Notified).is_some_and(|condition| condition.status == "True")
    }

    /// Whether nothing is left to do for the message: it was sent or never can be.
    pub fn is_notification_final(&self) -> bool {
        self.is_notified() || self.is_undeliverable()
    }

    /// Whether the customer's message was given up: sending it again has to be asked for.
    pub fn is_undeliverable(&self) -> bool {
        let finals = [Reason::Undeliverable.as_str(), Reason::DeadLettered.as_str()];
        conditions::find(&self.conditions, ConditionType::Notified)
            .is_some_and(|condition| finals.contains(&condition.reason.as_str()))
    }

    /// Whether billing may hold a charge that the status does not show, or owes a refund.
    pub fn is_charge_open(&self) -> bool {
        matches!(self.outcome(), Outcome::Undecided | Outcome::Unknown)
            || conditions::find(&self.conditions, ConditionType::Succeeded)
                .is_some_and(|condition| condition.reason == Reason::RefundPending.as_str())
    }

    /// Whether the customer is still to be notified of the outcome. An order that cannot be read has no customer to notify.
    pub fn is_message_open(&self) -> bool {
        let is_notified_of = match self.outcome() {
            Outcome::Paid => true,
            Outcome::Refused(refusal) => refusal != Refusal::InvalidOrder,
            Outcome::Undecided | Outcome::Unknown => false,
        };
        is_notified_of && !self.is_notification_final()
    }

    /// The number of the attempt to charge, from 1.
    pub fn attempt(&self) -> i32 {
        self.attempt.unwrap_or(1)
    }

    /// Adds to the history, which keeps its first entry and the latest.
    pub fn remember(&mut self, entry: HistoryEntry) {
        self.history.push(entry);
        if self.history.len() > MAX_HISTORY {
            self.history.remove(1);
        }
    }
}

/// The key under which billing keeps the charge of an attempt: the order's UID,
/// with the number of the attempt from the second on. A refund has its charge's key.
pub fn charge_key(uid: &str, attempt: i32) -> String {
    if attempt <= 1 { uid.to_owned() } else { format!("{uid}.{attempt}") }
}

/// The key of the customer's message about an outcome under a charge key: one for
/// what became of the charge, another for its refund.
pub fn message_key(charge_key: &str, outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(Refusal::Refunded) => format!("{charge_key}.refunded"),
        Outcome::Paid
        | Outcome::Refused(
            Refusal::InsufficientFunds
            | Refusal::AccountNotFound
            | Refusal::Cancelled
            | Refusal::DeadlineExceeded
            | Refusal::InvalidOrder,
        )
        | Outcome::Undecided
        | Outcome::Unknown => charge_key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(conditions: &[(ConditionType, Option<bool>, Reason)]) -> OrderStatus {
        let mut status = OrderStatus::default();
        for (kind, is, reason) in conditions {
            let now = jiff::Timestamp::UNIX_EPOCH;
            conditions::set(&mut status.conditions, *kind, *is, *reason, String::new(), None, now);
        }
        status
    }

    #[test]
    fn what_is_decided_and_what_is_open_follows_from_the_conditions() {
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
        (0..MAX_HISTORY).for_each(|number| status.remember(entry(number)));
        assert_eq!(status.history, (0..MAX_HISTORY).map(entry).collect::<Vec<_>>(), "all of them while there is room");
        (MAX_HISTORY..40).for_each(|number| status.remember(entry(number)));
        let kept: Vec<HistoryEntry> = std::iter::once(0).chain(25..40).map(entry).collect();
        assert_eq!(status.history, kept);
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
    fn an_annotation_asks_for_a_number_within_its_bounds() {
        let asked = |text: &str| {
            let annotations = Some([(ATTEMPT_ANNOTATION.to_owned(), text.to_owned())].into());
            asked_for(&ObjectMeta { annotations, ..ObjectMeta::default() }, ATTEMPT_ANNOTATION)
        };
        assert_eq!(["0", "1", "100", "101", "-1", "x", ""].map(asked), [0, 1, 100, 0, 0, 0, 0]);
        assert_eq!(asked_for(&ObjectMeta::default(), ATTEMPT_ANNOTATION), 0);
    }

    #[test]
    fn spec_reads_from_what_kubectl_users_write() {
        let spec: OrderSpec = serde_json::from_str(r#"{"login":"a","email":"a@b.cd","cartId":1,"amount":"5"}"#).unwrap();
        assert_eq!(spec.id, None);
    }
}
