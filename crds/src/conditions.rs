//! Condition types and reasons of an `Order` and a `Customer`, and the rules for setting them.
//!
//! The rules are those of the Kubernetes API conventions ("Typical status
//! properties"): a condition's transition time changes only when its status changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// The types of the conditions of an `Order` and of a `Customer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, IntoStaticStr)]
pub enum ConditionType {
    /// The outcome of an `Order`: Unknown while the order is processed, then True (paid) or False
    /// (refused or refunded).
    Succeeded,
    /// Whether the outcome of an `Order` is known: Unknown before the operator handles the order,
    /// False while it is processed, then True, whatever the outcome is.
    Decided,
    /// Whether the customer's account was charged.
    Paid,
    /// Whether the mail server accepted the customer's message.
    Notified,
    /// Whether a `Customer` has a billing account.
    AccountOpened,
}

/// Why a condition has its status: a closed set, shown in the STATUS and MAIL columns and
/// as the reason of Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
pub enum Reason {
    /// `Succeeded=Unknown`, `Decided=Unknown`: the operator has not handled the order yet. Kubernetes
    /// sets this default when it stores the order.
    Pending,
    /// `Succeeded=Unknown`: the order is being processed.
    Processing,
    /// `Succeeded=True`, `Paid=True`: the account was charged.
    Paid,
    /// `Succeeded=False`, `Paid=False`: the balance was less than the amount.
    InsufficientFunds,
    /// `Succeeded=False`, `Paid=False`: there is no account with this login.
    AccountNotFound,
    /// `Succeeded=False`, `Paid=False`: the order was cancelled, and billing closed its charge
    /// before it was made.
    Cancelled,
    /// `Succeeded=False`, `Paid=False`: the deadline passed before the charge began.
    DeadlineExceeded,
    /// `Succeeded=True`: the order was charged and then cancelled; its refund is being tried.
    RefundPending,
    /// `Succeeded=False`, `Paid=False`: the order was charged, cancelled and refunded.
    Refunded,
    /// `Succeeded=False`, `Paid=False`: the archive has an order of the same name with another spec.
    AlreadyExists,
    /// `Succeeded=False`, `Paid=False`: the resource cannot be read as an order.
    InvalidOrder,
    /// `Paid=Unknown`: billing has not replied with an outcome; the operator repeats the request.
    PaymentUnknown,
    /// `Paid=Unknown`: the archive has not replied whether it has an order of this name. The operator
    /// repeats the request, and charges nothing until then.
    ArchiveUnavailable,
    /// `Notified=True`: the mail server accepted the message.
    Sent,
    /// `Notified=False`: notify stored the message and is trying to deliver it.
    Delivering,
    /// `Notified=Unknown`: notify did not accept the message; the operator repeats the request.
    NotifyUnavailable,
    /// `Notified=False`: the message cannot be delivered to this address.
    Undeliverable,
    /// `Notified=False`: delivery failed too often, and notify gave up. The message is sent again on
    /// request.
    DeadLettered,
    /// `AccountOpened=True`: the account was opened for this customer.
    Opened,
    /// `AccountOpened=True`: an account with this login existed before.
    AlreadyOpen,
    /// `AccountOpened=Unknown`: billing does not respond; the operator repeats the request.
    BillingUnavailable,
}

impl ConditionType {
    /// The value in `status.conditions[].type`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Reason {
    /// The value in `status.conditions[].reason`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A condition's status as Kubernetes spells it.
pub const fn status_str(status: Option<bool>) -> &'static str {
    match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// The condition of this type, if it is set.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Sets a condition. A `status` of `None` means Unknown. The transition time is kept
/// unless the status changes. The default condition ([`Reason::Pending`]) has no time to keep.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    status: Option<bool>,
    reason: Reason,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) {
    let previous = find(conditions, kind);
    let status = status_str(status);
    let last_transition_time = match previous {
        Some(previous) if previous.status == status && previous.reason != Reason::Pending.as_str() => {
            previous.last_transition_time.clone()
        }
        _ => Time(now),
    };
    let condition = Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind.as_str()) {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        let mut set_paid = |status, reason, now| {
            set(&mut conditions, ConditionType::Paid, status, reason, String::new(), Some(1), at(now));
            conditions[0].last_transition_time.0
        };
        assert_eq!(set_paid(None, Reason::PaymentUnknown, 1), at(1));
        assert_eq!(set_paid(None, Reason::PaymentUnknown, 2), at(1));
        assert_eq!(set_paid(Some(true), Reason::Paid, 3), at(3));
        assert_eq!(conditions.len(), 1, "a list-map has one condition of each type");
    }

    #[test]
    fn the_default_condition_has_no_transition_time_to_keep() {
        let mut conditions = Vec::new();
        set(&mut conditions, ConditionType::Succeeded, None, Reason::Pending, String::new(), None, Timestamp::UNIX_EPOCH);
        set(&mut conditions, ConditionType::Succeeded, None, Reason::Processing, String::new(), Some(1), at(5));
        assert_eq!(conditions[0].last_transition_time.0, at(5));
    }

    #[test]
    fn a_condition_has_all_values_that_were_set() {
        let mut conditions = Vec::new();
        for (status, text) in [(Some(true), "True"), (Some(false), "False"), (None, "Unknown")] {
            set(&mut conditions, ConditionType::Notified, status, Reason::Sent, "why".to_owned(), Some(3), at(1));
            let found = find(&conditions, ConditionType::Notified).unwrap();
            assert_eq!((&*found.type_, &*found.status, &*found.reason, &*found.message), ("Notified", text, "Sent", "why"));
            assert_eq!(found.observed_generation, Some(3));
        }
        assert_eq!(find(&conditions, ConditionType::Succeeded), None);
        set(&mut conditions, ConditionType::Succeeded, None, Reason::Processing, String::new(), None, at(2));
        assert_eq!(conditions.iter().map(|c| &*c.type_).collect::<Vec<_>>(), ["Notified", "Succeeded"]);
    }

    #[test]
    fn types_and_reasons_are_displayed_as_they_are_stored() {
        use ConditionType::{AccountOpened, Decided, Notified, Paid, Succeeded};
        let types = [Succeeded, Decided, Paid, Notified, AccountOpened];
        assert_eq!(types.map(|kind| kind.to_string()), ["Succeeded", "Decided", "Paid", "Notified", "AccountOpened"]);
        for reason in Reason::iter() {
            assert_eq!((reason.to_string(), reason.as_str()), (format!("{reason:?}"), &*format!("{reason:?}")));
        }
    }

    #[test]
    fn every_reason_is_parsed_from_its_name() {
        for reason in Reason::iter() {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("Elsewhere".parse::<Reason>().is_err());
    }
}
