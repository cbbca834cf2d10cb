//! Decides the next step of an order, as a pure function.

use jiff::Timestamp;
use orders_crds::{OrderStatus, Outcome, Refusal, RetryStep};

use super::intent::Intent;

/// The next step of an order. A step that calls another service is safe to repeat: its key
/// follows from the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the archive whether the name of the order was used before.
    LookUp,
    /// Request the charge from billing.
    Charge,
    /// Request that billing close the charge, so that it can no longer be made. If the charge is
    /// already decided, billing returns its outcome.
    Close,
    /// Request the refund of the charge from billing.
    Refund,
    /// Request that notify send the message about the outcome.
    Notify,
    /// Begin the requested attempt to charge.
    Retry,
    /// Begin the requested resend of the message.
    Resend,
    /// A step failed; do nothing before this time.
    Wait(Timestamp),
    /// Nothing is left to do.
    Done,
}

/// Decides the next step from the status, the intent and the clock. Nothing else counts, because
/// any call may be the first one after a crash.
pub fn decide(status: &OrderStatus, intent: &Intent, now: Timestamp) -> Step {
    let is_to_close = intent.cancel || intent.deadline.is_some_and(|deadline| deadline <= now);
    let step = match status.outcome() {
        // A new order may take over an outcome, also if it is cancelled or late.
        Outcome::Undecided if intent.check_name && (status.is_pending() || !is_to_close) => Step::LookUp,
        // Closing the charge shows whether it was already made, whatever the deadline says.
        Outcome::Undecided if is_to_close => Step::Close,
        Outcome::Undecided => Step::Charge,
        // A newer version decided the order; this version leaves the order as it is.
        Outcome::Unknown => Step::Done,
        // The order cannot be read, so there is no customer to notify.
        Outcome::Refused(Refusal::InvalidOrder) => Step::Done,
        Outcome::Paid if intent.cancel => Step::Refund,
        Outcome::Refused(refusal) if refusal.is_retryable() && intent.attempt > status.attempt() && !intent.cancel => Step::Retry,
        Outcome::Paid | Outcome::Refused(_) => notification(status, intent),
    };
    match &status.retry {
        // A step that failed waits for its retry. Another step that has become due does not wait.
        Some(retry) if step.retry_step() == Some(retry.step) && retry.next_attempt_time.0 > now => {
            Step::Wait(retry.next_attempt_time.0)
        }
        _ => step,
    }
}

/// The next step of the notification of a decided order.
fn notification(status: &OrderStatus, intent: &Intent) -> Step {
    if status.is_undeliverable() && intent.resends > status.resends.unwrap_or(0) {
        Step::Resend
    } else if status.is_notification_final() {
        Step::Done
    } else {
        Step::Notify
    }
}

impl Step {
    /// The name of this step in `status.retry`; `None` if the step cannot fail.
    fn retry_step(self) -> Option<RetryStep> {
        match self {
            Step::LookUp | Step::Charge => Some(RetryStep::Payment),
            Step::Close => Some(RetryStep::Cancellation),
            Step::Refund => Some(RetryStep::Refund),
            Step::Notify => Some(RetryStep::Notification),
            Step::Retry | Step::Resend | Step::Wait(_) | Step::Done => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use orders_crds::{ConditionType, Reason, Retry, conditions};
    use strum::IntoEnumIterator;

    use super::*;

    const NOW: i64 = 1_000;
    const STEPS: [RetryStep; 4] = [RetryStep::Payment, RetryStep::Cancellation, RetryStep::Refund, RetryStep::Notification];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Every combination of the outcome, the message and a retry that a status can have, with every
    /// intent.
    fn all_cases() -> Vec<(OrderStatus, Intent)> {
        let mut cases = Vec::new();
        let states = [None, Some(None), Some(Some(true)), Some(Some(false))];
        let retries = STEPS.into_iter().flat_map(|step| [NOW - 1, NOW, NOW + 1].map(|second| Some((step, second))));
        let retries: Vec<_> = retries.chain([None]).collect();
        let intents = [false, true].into_iter().flat_map(|cancel| {
            [None, Some(at(NOW)), Some(at(NOW + 1))].into_iter().flat_map(move |deadline| {
                let numbers = [(0, false), (1, false), (2, false), (2, true)];
                numbers.map(|(number, check_name)| Intent { cancel, deadline, attempt: number, check_name, resends: number })
            })
        });
        let intents: Vec<Intent> = intents.collect();
        for succeeded in states {
            for notified in states {
                for reason in Reason::iter() {
                    for retry in &retries {
                        let mut status = OrderStatus::default();
                        let mut set = |kind, state: Option<Option<bool>>| {
                            if let Some(state) = state {
                                conditions::set(&mut status.conditions, kind, state, reason, String::new(), None, at(0));
                            }
                        };
                        set(ConditionType::Succeeded, succeeded);
                        set(ConditionType::Notified, notified);
                        status.retry = retry.map(|(step, second)| Retry {
                            step,
                            attempts: 1,
                            next_attempt_time: MicroTime(at(second)),
                            last_error: String::new(),
                        });
                        cases.extend(intents.iter().map(|intent| (status.clone(), *intent)));
                    }
                }
            }
        }
        cases
    }

    #[test]
    fn each_step_is_decided_only_if_it_is_allowed() {
        for (status, intent) in all_cases() {
            let outcome = status.outcome();
            let (is_undecided, is_late) =
                (outcome == Outcome::Undecided, intent.deadline.is_some_and(|deadline| deadline <= at(NOW)));
            let case = || format!("{status:?} {intent:?}");
            match decide(&status, &intent, at(NOW)) {
                Step::LookUp => {
                    assert!(is_undecided && intent.check_name, "{}", case());
                    assert!(status.is_pending() || !(intent.cancel || is_late), "{}", case());
                }
                Step::Charge => assert!(is_undecided && !intent.cancel && !is_late && !intent.check_name, "{}", case()),
                Step::Close => {
                    assert!(is_undecided && (intent.cancel || is_late), "{}", case());
                    assert!(!(intent.check_name && status.is_pending()), "{}", case());
                }
                Step::Refund => assert!(outcome == Outcome::Paid && intent.cancel, "{}", case()),
                Step::Notify => {
                    assert!(!is_undecided && !status.is_notification_final(), "{}", case());
                    assert!(outcome != Outcome::Paid || !intent.cancel, "{}", case());
                }
                Step::Retry => {
                    let refused = matches!(outcome, Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound));
                    assert!(refused && intent.attempt == 2 && !intent.cancel, "{}", case());
                }
                Step::Resend => assert!(status.is_undeliverable() && intent.resends > 0, "{}", case()),
                Step::Wait(until) => assert!(until > at(NOW) && status.retry.is_some(), "{}", case()),
                Step::Done => assert!(
                    status.is_notification_final()
                        || [Outcome::Refused(Refusal::InvalidOrder), Outcome::Unknown].contains(&outcome),
                    "{}",
                    case()
                ),
            }
        }
    }

    /// The expected step: that of the first rule that applies.
    fn expected_step(status: &OrderStatus, intent: &Intent) -> Step {
        let (outcome, now) = (status.outcome(), at(NOW));
        let is_late = intent.deadline.is_some_and(|deadline| deadline <= now);
        let lacks_money = [Refusal::InsufficientFunds, Refusal::AccountNotFound].map(Outcome::Refused).contains(&outcome);
        let rules = [
            (
                outcome == Outcome::Undecided && intent.check_name && (status.is_pending() || !(intent.cancel || is_late)),
                Step::LookUp,
                Some(RetryStep::Payment),
            ),
            (outcome == Outcome::Undecided && (intent.cancel || is_late), Step::Close, Some(RetryStep::Cancellation)),
            (outcome == Outcome::Undecided, Step::Charge, Some(RetryStep::Payment)),
            (outcome == Outcome::Unknown, Step::Done, None),
            (outcome == Outcome::Refused(Refusal::InvalidOrder), Step::Done, None),
            (outcome == Outcome::Paid && intent.cancel, Step::Refund, Some(RetryStep::Refund)),
            (lacks_money && intent.attempt >= 2 && !intent.cancel, Step::Retry, None),
            (status.is_undeliverable() && intent.resends >= 1, Step::Resend, None),
            (status.is_notification_final(), Step::Done, None),
            (true, Step::Notify, Some(RetryStep::Notification)),
        ];
        let (_, step, retry_step) = rules.into_iter().find(|(applies, ..)| *applies).unwrap();
        match &status.retry {
            Some(retry) if Some(retry.step) == retry_step && retry.next_attempt_time.0 > now => {
                Step::Wait(retry.next_attempt_time.0)
            }
            _ => step,
        }
    }

    #[test]
    fn each_step_is_decided_whenever_it_is_due() {
        for (status, intent) in all_cases() {
            assert_eq!(decide(&status, &intent, at(NOW)), expected_step(&status, &intent), "{status:?} {intent:?}");
        }
    }

    #[test]
    fn a_fulfilled_request_for_a_retry_or_a_resend_is_not_executed_again() {
        let mut refused = OrderStatus { attempt: Some(2), resends: Some(2), ..OrderStatus::default() };
        let mut set = |kind, reason| {
            conditions::set(&mut refused.conditions, kind, Some(false), reason, String::new(), None, at(0));
        };
        set(ConditionType::Succeeded, Reason::InsufficientFunds);
        set(ConditionType::Notified, Reason::DeadLettered);
        let intent = |attempt, resends| Intent { attempt, resends, ..Intent::default() };
        assert_eq!(decide(&refused, &intent(2, 2), at(NOW)), Step::Done);
        assert_eq!(decide(&refused, &intent(3, 2), at(NOW)), Step::Retry);
        assert_eq!(decide(&refused, &intent(2, 3), at(NOW)), Step::Resend);
    }

    #[test]
    fn a_cancellation_does_not_wait_for_the_retry_of_the_payment() {
        let retry = Retry {
            step: RetryStep::Payment,
            attempts: 9,
            next_attempt_time: MicroTime(at(NOW + 60)),
            last_error: String::new(),
        };
        let status = OrderStatus { retry: Some(retry), ..OrderStatus::default() };
        assert_eq!(decide(&status, &Intent::default(), at(NOW)), Step::Wait(at(NOW + 60)));
        assert_eq!(decide(&status, &Intent { cancel: true, ..Intent::default() }, at(NOW)), Step::Close);
    }

    #[test]
    fn a_new_order_is_charged() {
        assert_eq!(decide(&OrderStatus::default(), &Intent::default(), at(NOW)), Step::Charge);
    }
}
