//! The outcome of an order, as its conditions show it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use strum::EnumIter;

use crate::conditions::{self, ConditionType, Reason};

/// The outcome of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The order is not decided yet. It is never reported as refused.
    Undecided,
    /// The account was charged.
    Paid,
    /// The account was not charged, or the charge was refunded, for this reason.
    Refused(Refusal),
    /// A newer version decided the order, for a reason that this version does not know. The order is
    /// never reported as refused, and its customer is not notified.
    Unknown,
}

/// Why an order was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter)]
pub enum Refusal {
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no account with the login.
    AccountNotFound,
    /// The order was cancelled before it was charged.
    Cancelled,
    /// The deadline passed before the charge began.
    DeadlineExceeded,
    /// The order was charged, cancelled, and refunded.
    Refunded,
    /// An earlier order had the same name and another spec. A name is good once.
    AlreadyExists,
    /// The resource cannot be read as an order.
    InvalidOrder,
}

impl Refusal {
    /// The reason of the condition `Succeeded`.
    pub const fn reason(self) -> Reason {
        match self {
            Refusal::InsufficientFunds => Reason::InsufficientFunds,
            Refusal::AccountNotFound => Reason::AccountNotFound,
            Refusal::Cancelled => Reason::Cancelled,
            Refusal::DeadlineExceeded => Reason::DeadlineExceeded,
            Refusal::Refunded => Reason::Refunded,
            Refusal::AlreadyExists => Reason::AlreadyExists,
            Refusal::InvalidOrder => Reason::InvalidOrder,
        }
    }

    /// The refusal with this reason; `None` if the reason is not that of a refusal.
    pub const fn of(reason: Reason) -> Option<Self> {
        match reason {
            Reason::InsufficientFunds => Some(Refusal::InsufficientFunds),
            Reason::AccountNotFound => Some(Refusal::AccountNotFound),
            Reason::Cancelled => Some(Refusal::Cancelled),
            Reason::DeadlineExceeded => Some(Refusal::DeadlineExceeded),
            Reason::Refunded => Some(Refusal::Refunded),
            Reason::AlreadyExists => Some(Refusal::AlreadyExists),
            Reason::InvalidOrder => Some(Refusal::InvalidOrder),
            Reason::Pending
            | Reason::Processing
            | Reason::Paid
            | Reason::RefundPending
            | Reason::PaymentUnknown
            | Reason::ArchiveUnavailable
            | Reason::Sent
            | Reason::Delivering
            | Reason::NotifyUnavailable
            | Reason::Undeliverable
            | Reason::DeadLettered
            | Reason::Opened
            | Reason::AlreadyOpen
            | Reason::BillingUnavailable => None,
        }
    }

    /// Whether another attempt to charge the order may be requested.
    pub const fn is_retryable(self) -> bool {
        match self {
            Refusal::InsufficientFunds | Refusal::AccountNotFound => true,
            Refusal::Cancelled
            | Refusal::DeadlineExceeded
            | Refusal::Refunded
            | Refusal::AlreadyExists
            | Refusal::InvalidOrder => false,
        }
    }
}

impl Outcome {
    /// The outcome that the condition `Succeeded` of these conditions shows.
    pub fn of(conditions: &[Condition]) -> Self {
        let Some(condition) = conditions::find(conditions, ConditionType::Succeeded) else { return Outcome::Undecided };
        match &*condition.status {
            "True" => Outcome::Paid,
            "False" => match condition.reason.parse().ok().and_then(Refusal::of) {
                Some(refusal) => Outcome::Refused(refusal),
                None => Outcome::Unknown,
            },
            _ => Outcome::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use strum::IntoEnumIterator;

    use super::*;

    fn outcome(status: &str, reason: &str) -> Outcome {
        let condition = Condition {
            type_: "Succeeded".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        Outcome::of(&[condition])
    }

    #[test]
    fn each_refusal_is_found_by_its_reason() {
        for refusal in Refusal::iter() {
            assert_eq!(Refusal::of(refusal.reason()), Some(refusal));
            assert_eq!(outcome("False", refusal.reason().as_str()), Outcome::Refused(refusal));
        }
        assert_eq!(Reason::iter().filter_map(Refusal::of).count(), Refusal::iter().count(), "one reason each");
    }

    #[test]
    fn only_an_order_that_lacked_money_or_an_account_can_be_charged_again() {
        let retryable: Vec<Refusal> = Refusal::iter().filter(|refusal| refusal.is_retryable()).collect();
        assert_eq!(retryable, [Refusal::InsufficientFunds, Refusal::AccountNotFound]);
    }

    #[test]
    fn a_reason_of_a_newer_version_is_unknown_and_never_a_refusal() {
        assert_eq!(outcome("False", "AccountFrozen"), Outcome::Unknown);
        assert_eq!(outcome("False", "Sent"), Outcome::Unknown, "the reason of another condition");
        assert_eq!(outcome("True", "PaidByVoucher"), Outcome::Paid);
        for status in ["Unknown", "", "false"] {
            assert_eq!(outcome(status, "InsufficientFunds"), Outcome::Undecided, "{status}");
        }
        assert_eq!(Outcome::of(&[]), Outcome::Undecided);
    }
}
