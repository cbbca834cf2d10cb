//! Decides the next step of an order, as a pure function.

use jiff::Timestamp;
use orders_crds::{OrderStatus, Outcome, Refusal, RetryStep};

use super::intent::Intent;

/// The next step of an order. A step that calls another service is safe to repeat: its key
/// follows from the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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
    let step = match status.outcome() {
        // Closing the charge shows whether it was already made, whatever the deadline says.
        Outcome::Undecided if intent.cancel || intent.deadline.is_some_and(|deadline| deadline <= now) => Step::Close,
        Outcome::Undecided => Step::Charge,
        // A newer version decided the order; this version leaves the order as it is.
        Outcome::Unknown => return Step::Done,
        // The order cannot be read, so there is no customer to notify.
        Outcome::Refused(Refusal::InvalidOrder) => return Step::Done,
        Outcome::Paid if intent.cancel => Step::Refund,
        Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound)
            if intent.attempt > status.attempt() && !intent.cancel =>
        {
            return Step::Retry;
        }
        Outcome::Paid | Outcome::Refused(_) => match notification(status, intent) {
            Step::Notify => Step::Notify,
            settled => return settled,
        },
    };
    match &status.retry {
        // A step that failed waits for its retry. Another step that has become due does not wait.
        Some(retry) if step.retried_as() == Some(retry.step) && retry.next_attempt_time.0 > now => {
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
    fn retried_as(self) -> Option<RetryStep> {
        match self {
            Step::Charge => Some(RetryStep::Payment),
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
    fn every_case() -> Vec<(OrderStatus, Intent)> {
        let mut all = Vec::new();
        let states = [None, Some(None), Some(Some(true)), Some(Some(false))];
        let retries = STEPS.into_iter().flat_map(|step| [NOW - 1, NOW, NOW + 1].map(|second| Some((step, second))));
        let retries: Vec<_> = retries.chain([None]).collect();
        let wishes = [false, true].into_iter().flat_map(|cancel| {
            [None, Some(at(NOW)), Some(at(NOW + 1))]
                .into_iter()
                .flat_map(move |deadline| [0, 1, 2].map(|number| Intent { cancel, deadline, attempt: number, resends: number }))
        });
        let wishes: Vec<Intent> = wishes.collect();
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
                        all.extend(wishes.iter().map(|intent| (status.clone(), *intent)));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn each_step_is_taken_only_where_it_belongs() {
        for (status, intent) in every_case() {
            let outcome = status.outcome();
            let (undecided, late) = (outcome == Outcome::Undecided, intent.deadline.is_some_and(|deadline| deadline <= at(NOW)));
            let what = || format!("{status:?} {intent:?}");
            match decide(&status, &intent, at(NOW)) {
                Step::Charge => assert!(undecided && !intent.cancel && !late, "{}", what()),
                Step::Close => assert!(undecided && (intent.cancel || late), "{}", what()),
                Step::Refund => assert!(outcome == Outcome::Paid && intent.cancel, "{}", what()),
                Step::Notify => {
                    assert!(!undecided && !status.is_notification_final(), "{}", what());
                    assert!(outcome != Outcome::Paid || !intent.cancel, "{}", what());
                }
                Step::Retry => {
                    let refused = matches!(outcome, Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound));
                    assert!(refused && intent.attempt == 2 && !intent.cancel, "{}", what());
                }
                Step::Resend => assert!(status.is_undeliverable() && intent.resends > 0, "{}", what()),
                Step::Wait(until) => assert!(until > at(NOW) && status.retry.is_some(), "{}", what()),
                Step::Done => assert!(
                    status.is_notification_final()
                        || [Outcome::Refused(Refusal::InvalidOrder), Outcome::Unknown].contains(&outcome),
                    "{}",
                    what()
                ),
            }
        }
    }

    /// The step that is due: that of the first rule that applies.
    fn due(status: &OrderStatus, intent: &Intent) -> Step {
        let (outcome, now) = (status.outcome(), at(NOW));
        let is_too_late = intent.deadline.is_some_and(|deadline| deadline <= now);
        let lacks_money = [Refusal::InsufficientFunds, Refusal::AccountNotFound].map(Outcome::Refused).contains(&outcome);
        let rules = [
            (outcome == Outcome::Undecided && (intent.cancel || is_too_late), Step::Close, Some(RetryStep::Cancellation)),
            (outcome == Outcome::Undecided, Step::Charge, Some(RetryStep::Payment)),
            (outcome == Outcome::Unknown, Step::Done, None),
            (outcome == Outcome::Refused(Refusal::InvalidOrder), Step::Done, None),
            (outcome == Outcome::Paid && intent.cancel, Step::Refund, Some(RetryStep::Refund)),
            (lacks_money && intent.attempt >= 2 && !intent.cancel, Step::Retry, None),
            (status.is_undeliverable() && intent.resends >= 1, Step::Resend, None),
            (status.is_notification_final(), Step::Done, None),
            (true, Step::Notify, Some(RetryStep::Notification)),
        ];
        let (_, step, retried) = rules.into_iter().find(|(applies, ..)| *applies).unwrap();
        match &status.retry {
            Some(retry) if Some(retry.step) == retried && retry.next_attempt_time.0 > now => {
                Step::Wait(retry.next_attempt_time.0)
            }
            _ => step,
        }
    }

    #[test]
    fn each_step_is_taken_wherever_it_is_due() {
        for (status, intent) in every_case() {
            assert_eq!(decide(&status, &intent, at(NOW)), due(&status, &intent), "{status:?} {intent:?}");
        }
    }

    #[test]
    fn what_was_tried_again_or_sent_again_as_often_as_asked_is_not_once_more() {
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
    fn a_cancellation_does_not_wait_for_the_payment_that_fails() {
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
