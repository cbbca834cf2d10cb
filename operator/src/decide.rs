//! What an order needs next: a pure decision.

use jiff::Timestamp;
use orders_crds::{OrderStatus, Outcome, Reason};

/// The next step of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask billing for the charge. Safe to repeat: the key is the order's UID.
    Charge,
    /// Have the customer told the outcome. Safe to repeat for the same reason.
    Notify,
    /// Something failed; nothing to do before this time.
    Wait(Timestamp),
    /// Nothing is left to do.
    Done,
}

/// Decides the next step from what is known. Any call may be the first after a
/// crash, so nothing but the status and the clock counts.
pub fn decide(status: &OrderStatus, now: Timestamp) -> Step {
    let step = match status.outcome() {
        Outcome::Undecided => Step::Charge,
        // It cannot be read, so there is nobody to tell.
        Outcome::Refused(Some(Reason::InvalidOrder)) => return Step::Done,
        Outcome::Paid | Outcome::Refused(_) if status.is_notification_final() => return Step::Done,
        Outcome::Paid | Outcome::Refused(_) => Step::Notify,
    };
    match &status.retry {
        Some(retry) if retry.next_attempt_time.0 > now => Step::Wait(retry.next_attempt_time.0),
        _ => step,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use orders_crds::{ConditionType, Retry, RetryStep, conditions};

    use super::*;

    const NOW: i64 = 1_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Every combination of the outcome, the message and a retry that the status can hold.
    fn every_status() -> Vec<OrderStatus> {
        let mut all = Vec::new();
        let states = [None, Some(None), Some(Some(true)), Some(Some(false))];
        for succeeded in states {
            for notified in states {
                for reason in Reason::ALL {
                    for retry_at in [None, Some(NOW - 1), Some(NOW), Some(NOW + 1)] {
                        let mut status = OrderStatus::default();
                        let mut set = |kind, state: Option<Option<bool>>| {
                            if let Some(state) = state {
                                conditions::set(&mut status.conditions, kind, state, reason, String::new(), None, at(0));
                            }
                        };
                        set(ConditionType::Succeeded, succeeded);
                        set(ConditionType::Notified, notified);
                        status.retry = retry_at.map(|second| Retry {
                            step: RetryStep::Payment,
                            attempts: 1,
                            next_attempt_time: MicroTime(at(second)),
                            last_error: String::new(),
                        });
                        all.push(status);
                    }
                }
            }
        }
        all
    }

    #[test]
    fn an_order_is_charged_exactly_while_it_is_undecided_and_nothing_is_to_wait_for() {
        for status in every_status() {
            let due = status.retry.as_ref().is_none_or(|retry| retry.next_attempt_time.0 <= at(NOW));
            let charges = decide(&status, at(NOW)) == Step::Charge;
            assert_eq!(charges, due && status.outcome() == Outcome::Undecided, "{status:?}");
        }
    }

    #[test]
    fn a_decided_order_is_notified_until_the_message_is_final() {
        for status in every_status() {
            let decided = status.outcome() != Outcome::Undecided;
            match decide(&status, at(NOW)) {
                Step::Notify => assert!(decided && !status.is_notification_final(), "{status:?}"),
                Step::Done => assert!(
                    decided
                        && (status.is_notification_final() || status.outcome() == Outcome::Refused(Some(Reason::InvalidOrder))),
                    "{status:?}"
                ),
                Step::Charge => assert!(!decided, "{status:?}"),
                Step::Wait(until) => assert!(until > at(NOW), "{status:?}"),
            }
        }
    }

    #[test]
    fn a_new_order_is_charged() {
        assert_eq!(decide(&OrderStatus::default(), at(NOW)), Step::Charge);
    }
}
