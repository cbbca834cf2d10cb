//! What came back from a step, as the order's status and its story: pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use orders_crds::{Charge, ConditionType, Money, OrderStatus, Reason, Retry, RetryStep, conditions};

use crate::{
    clients::{Delivery, NoAnswer, Payment},
    events::Happened,
    purchase::Purchase,
};

/// The first pause after a failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause, so that an order goes on within a minute of the repair.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest error text kept in a status, in characters.
const MAX_ERROR: usize = 512;

/// A status in the making, and what happened on the way.
#[derive(Debug)]
pub struct Progress {
    /// The status so far.
    pub status: OrderStatus,
    /// What is worth an Event, in order.
    pub story: Vec<Happened>,
    generation: Option<i64>,
}

impl Progress {
    /// Goes on from what the order's status says. `generation` is the order's.
    pub fn new(status: OrderStatus, generation: Option<i64>) -> Self {
        Progress { status, story: Vec::new(), generation }
    }

    /// Takes in billing's answer about the charge.
    pub fn paid(&mut self, purchase: &Purchase, answer: Result<Payment, NoAnswer>, now: Timestamp) {
        use ConditionType::{Paid, Succeeded};
        match answer {
            Ok(Payment::Charged { balance }) => {
                let message = format!("Charged {} to {}; the balance is now {balance}.", purchase.amount, purchase.login);
                self.status.charge = Some(Charge { key: purchase.key.clone(), amount: purchase.amount });
                self.status.balance = Some(balance);
                self.set(Paid, Some(true), Reason::Paid, &message, now);
                self.set(Succeeded, Some(true), Reason::Paid, &message, now);
                self.status.retry = None;
                self.story.push(Happened::normal(Reason::Paid, "Charge", message));
            }
            Ok(Payment::Refused { reason, balance }) => {
                let message = refusal(purchase, reason, balance);
                self.status.balance = balance;
                self.set(Paid, Some(false), reason, &message, now);
                self.set(Succeeded, Some(false), reason, &message, now);
                self.status.retry = None;
                self.story.push(Happened::warning(reason, "Charge", message));
            }
            Err(NoAnswer(error)) => {
                let message = "Billing has not given a definite answer; it is asked again with the same key.";
                if self.set(Paid, None, Reason::PaymentUnknown, message, now) {
                    let note = format!("{message} Nothing is charged twice. {error}");
                    self.story.push(Happened::warning(Reason::PaymentUnknown, "Charge", note));
                }
                self.set(Succeeded, None, Reason::Processing, "Waiting for the payment.", now);
                self.failed(RetryStep::Payment, &error, now);
            }
        }
    }

    /// Takes in how the customer's message stands.
    pub fn notified(&mut self, purchase: &Purchase, answer: Result<Delivery, NoAnswer>, now: Timestamp) {
        use ConditionType::Notified;
        let email = &purchase.email;
        match answer {
            Ok(Delivery::Sent) => {
                let message = format!("The mail server accepted the message to {email}.");
                self.set(Notified, Some(true), Reason::Sent, &message, now);
                self.status.retry = None;
                self.story.push(Happened::normal(Reason::Sent, "Notify", message));
            }
            Ok(Delivery::Underway { last_error }) => {
                let message = format!("The message to {email} is stored; the mail server has not accepted it yet.");
                let error = last_error.unwrap_or_else(|| "the mail server has not answered yet".to_owned());
                if self.set(Notified, Some(false), Reason::Delivering, &message, now) {
                    self.story.push(Happened::warning(Reason::Delivering, "Notify", format!("{message} {error}")));
                }
                self.failed(RetryStep::Notification, &error, now);
            }
            Ok(Delivery::Refused { why }) => {
                let message = format!("The message to {email} cannot be delivered: {why}");
                self.set(Notified, Some(false), Reason::Undeliverable, &message, now);
                self.status.retry = None;
                self.story.push(Happened::warning(Reason::Undeliverable, "Notify", message));
            }
            Err(NoAnswer(error)) => {
                let message = "The notify service has not taken the message; it is asked again.";
                if self.set(Notified, None, Reason::NotifyUnavailable, message, now) {
                    self.story.push(Happened::warning(Reason::NotifyUnavailable, "Notify", format!("{message} {error}")));
                }
                self.failed(RetryStep::Notification, &error, now);
            }
        }
    }

    /// Refuses an order that cannot be worked on.
    pub fn invalid(&mut self, problem: &str, now: Timestamp) {
        let message = format!("The order cannot be worked on: {problem}");
        self.set(ConditionType::Paid, Some(false), Reason::InvalidOrder, &message, now);
        self.set(ConditionType::Succeeded, Some(false), Reason::InvalidOrder, &message, now);
        self.status.retry = None;
        self.story.push(Happened::warning(Reason::InvalidOrder, "Read", message));
    }

    /// Sets a condition; true if its reason is another than before, which is worth an Event.
    fn set(&mut self, kind: ConditionType, status: Option<bool>, reason: Reason, message: &str, now: Timestamp) -> bool {
        let before = conditions::find(&self.status.conditions, kind).map(|condition| condition.reason.clone());
        conditions::set(&mut self.status.conditions, kind, status, reason, message.to_owned(), self.generation, now);
        self.status.observed_generation = self.generation;
        before.as_deref() != Some(reason.as_str())
    }

    fn failed(&mut self, step: RetryStep, error: &str, now: Timestamp) {
        let before = self.status.retry.take().filter(|retry| retry.step == step).map_or(0, |retry| retry.attempts);
        self.status.retry = Some(Retry {
            step,
            attempts: before.saturating_add(1),
            next_attempt_time: MicroTime(now + pause(before)),
            last_error: error.chars().take(MAX_ERROR).collect(),
        });
    }
}

fn refusal(purchase: &Purchase, reason: Reason, balance: Option<Money>) -> String {
    match reason {
        Reason::AccountNotFound => format!("There is no account {}; register it first.", purchase.login),
        Reason::Cancelled => "The charge was closed before it could land; nothing was charged.".to_owned(),
        _ => format!(
            "The balance of {} is {}, the order's amount {}; nothing was charged.",
            purchase.login,
            balance.unwrap_or_default(),
            purchase.amount
        ),
    }
}

/// 0.5 s, 1 s, 2 s … after so many failures before this one, at most [`LONGEST_PAUSE`].
fn pause(failed_before: i32) -> Duration {
    let doublings = u32::try_from(failed_before).unwrap_or(0).min(16);
    LONGEST_PAUSE.min(FIRST_PAUSE * (1 << doublings))
}

#[cfg(test)]
mod tests {
    use orders_crds::{OrderSpec, Outcome};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn purchase() -> Purchase {
        let spec = OrderSpec { id: None, login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into() };
        Purchase::read("uid", &spec).unwrap()
    }

    fn progress() -> Progress {
        Progress::new(OrderStatus::default(), Some(1))
    }

    #[test]
    fn no_answer_is_unknown_and_never_a_refusal() {
        let mut order = progress();
        for attempt in 1..=3 {
            order.paid(&purchase(), Err(NoAnswer("timeout".into())), at(attempt));
            assert_eq!(order.status.outcome(), Outcome::Undecided);
        }
        let retry = order.status.retry.clone().unwrap();
        assert_eq!((retry.step, retry.attempts), (RetryStep::Payment, 3));
        assert_eq!(retry.next_attempt_time.0, at(3) + Duration::from_secs(2));
        assert_eq!(order.story.len(), 1, "told once, not at each attempt");

        order.paid(&purchase(), Ok(Payment::Charged { balance: Money::ZERO }), at(9));
        assert_eq!(order.status.outcome(), Outcome::Paid);
        assert_eq!(order.status.retry, None, "a retry shows only while something fails");
    }

    #[test]
    fn a_failed_message_never_changes_the_outcome() {
        for answer in [
            Err(NoAnswer("down".into())),
            Ok(Delivery::Underway { last_error: None }),
            Ok(Delivery::Refused { why: "no such address".into() }),
        ] {
            let mut order = progress();
            order.paid(&purchase(), Ok(Payment::Charged { balance: Money::ZERO }), at(1));
            order.notified(&purchase(), answer, at(2));
            assert_eq!(order.status.outcome(), Outcome::Paid);
            assert!(!order.status.is_notified());
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        assert_eq!([0, 1, 2, 7, 99].map(pause), [500, 1000, 2000, 60_000, 60_000].map(Duration::from_millis));
    }
}
