//! Builds the next status of an order from the answers to its steps. This module does no I/O.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use orders_crds::{Charge, ConditionType, HistoryEntry, Money, OrderStatus, Reason, Refusal, Retry, RetryStep, conditions};

use crate::{
    kube::events::OrderEvent,
    ports::{Delivery, NoAnswer, Payment, Purchase},
};

/// The delay after the first failure. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest delay, so that an order continues within a minute after a service is repaired.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest error text kept in a status, in characters.
const MAX_ERROR: usize = 512;

/// Builds the next status of an order, and collects the events.
#[derive(Debug)]
pub struct StatusBuilder {
    /// The status so far.
    pub status: OrderStatus,
    /// The events to publish, oldest first.
    pub events: Vec<OrderEvent>,
    generation: Option<i64>,
}

impl StatusBuilder {
    /// Starts from the status of an order with this generation.
    pub fn new(status: OrderStatus, generation: Option<i64>) -> Self {
        StatusBuilder { status, events: Vec::new(), generation }
    }

    /// Records billing's answer about the charge.
    pub fn paid(&mut self, purchase: &Purchase, answer: Result<Payment, NoAnswer>, now: Timestamp) {
        match answer {
            Ok(Payment::Charged { balance }) => self.charged(purchase, balance, now),
            Ok(Payment::Refused { refusal, balance }) => self.refused(purchase, "Charge", refusal, balance, now),
            Err(NoAnswer(error)) => {
                let message = "Billing has not given a definite answer; it is asked again with the same key.";
                self.unknown("Charge", message, &error, now);
                self.failed(RetryStep::Payment, &error, now);
            }
        }
    }

    /// Records billing's answer about closing the charge. The charge was closed because the order was
    /// `cancelled`, otherwise because its deadline passed.
    pub fn closed(&mut self, purchase: &Purchase, answer: Result<Payment, NoAnswer>, cancelled: bool, now: Timestamp) {
        match answer {
            Ok(Payment::Charged { balance }) => self.charged(purchase, balance, now),
            Ok(Payment::Refused { refusal: Refusal::Cancelled, balance }) if !cancelled => {
                self.refused(purchase, "Cancel", Refusal::DeadlineExceeded, balance, now);
            }
            Ok(Payment::Refused { refusal, balance }) => self.refused(purchase, "Cancel", refusal, balance, now),
            Err(NoAnswer(error)) => {
                let message = "Billing has not said yet whether the charge was made; it is asked again, and the charge closed or given back.";
                self.unknown("Cancel", message, &error, now);
                self.failed(RetryStep::Cancellation, &error, now);
            }
        }
    }

    /// Records billing's answer about the refund. The answer is the balance right after the refund.
    pub fn refunded(&mut self, purchase: &Purchase, answer: Result<Money, NoAnswer>, now: Timestamp) {
        use ConditionType::{Paid, Succeeded};
        match answer {
            Ok(balance) => {
                let message = format!("Gave {} back to {}; the balance is now {balance}.", purchase.amount, purchase.login);
                self.status.refunded = Some(purchase.amount);
                self.status.balance = Some(balance);
                self.set(Paid, Some(false), Reason::Refunded, &message, now);
                self.set(Succeeded, Some(false), Reason::Refunded, &message, now);
                self.begin_notification();
                self.happened(OrderEvent::normal(Reason::Refunded, "Refund", message), now);
            }
            Err(NoAnswer(error)) => {
                let message =
                    "The order was cancelled after it was charged; billing is asked to give the charge back until it does.";
                if self.set(Succeeded, Some(true), Reason::RefundPending, message, now) {
                    self.happened(OrderEvent::warning(Reason::RefundPending, "Refund", format!("{message} {error}")), now);
                }
                self.failed(RetryStep::Refund, &error, now);
            }
        }
    }

    /// Begins another attempt to charge.
    pub fn retried(&mut self, attempt: i32, now: Timestamp) {
        let message = format!("Charging again as asked: attempt {attempt}.");
        self.status.attempt = Some(attempt);
        (self.status.balance, self.status.charge, self.status.refunded) = (None, None, None);
        self.set(ConditionType::Paid, None, Reason::Processing, &message, now);
        self.set(ConditionType::Succeeded, None, Reason::Processing, &message, now);
        self.begin_notification();
        self.happened(OrderEvent::normal(Reason::Processing, "Retry", message), now);
    }

    /// Begins another delivery of the message.
    pub fn resent(&mut self, resends: i32, now: Timestamp) {
        let message = "The message is sent again as asked.";
        self.status.resends = Some(resends);
        self.set(ConditionType::Notified, Some(false), Reason::Delivering, message, now);
        self.status.retry = None;
        self.happened(OrderEvent::normal(Reason::Delivering, "Resend", message.to_owned()), now);
    }

    fn charged(&mut self, purchase: &Purchase, balance: Money, now: Timestamp) {
        let message = format!("Charged {} to {}; the balance is now {balance}.", purchase.amount, purchase.login);
        self.status.charge = Some(Charge { key: purchase.key.clone(), amount: purchase.amount });
        self.status.balance = Some(balance);
        self.set(ConditionType::Paid, Some(true), Reason::Paid, &message, now);
        self.set(ConditionType::Succeeded, Some(true), Reason::Paid, &message, now);
        self.begin_notification();
        self.happened(OrderEvent::normal(Reason::Paid, "Charge", message), now);
    }

    fn refused(&mut self, purchase: &Purchase, action: &'static str, refusal: Refusal, balance: Option<Money>, now: Timestamp) {
        let (reason, message) = (refusal.reason(), explain(purchase, refusal, balance));
        self.status.balance = balance;
        self.set(ConditionType::Paid, Some(false), reason, &message, now);
        self.set(ConditionType::Succeeded, Some(false), reason, &message, now);
        self.begin_notification();
        self.happened(OrderEvent::warning(reason, action, message), now);
    }

    fn unknown(&mut self, action: &'static str, message: &str, error: &str, now: Timestamp) {
        if self.set(ConditionType::Paid, None, Reason::PaymentUnknown, message, now) {
            let note = format!("{message} Nothing is charged twice. {error}");
            self.happened(OrderEvent::warning(Reason::PaymentUnknown, action, note), now);
        }
        self.set(ConditionType::Succeeded, None, Reason::Processing, "Waiting for the payment.", now);
    }

    /// Clears the state of the message, because the outcome changed. A message about an earlier
    /// outcome does not count.
    fn begin_notification(&mut self) {
        self.status.conditions.retain(|condition| condition.type_ != ConditionType::Notified.as_str());
        self.status.retry = None;
    }

    /// Adds an event to the history and to the events to publish.
    fn happened(&mut self, mut event: OrderEvent, now: Timestamp) {
        // None of these numbers ever decreases, so a later round has a higher number.
        let refunds = i32::from(self.status.refunded.is_some());
        event.round = self.status.attempt() + self.status.resends.unwrap_or(0) + refunds;
        self.status.remember(HistoryEntry {
            time: Time(now),
            action: event.action.to_owned(),
            reason: event.reason.as_str().to_owned(),
            message: event.note.chars().take(MAX_ERROR).collect(),
        });
        self.events.push(event);
    }

    /// Records the state of the customer's message.
    pub fn notified(&mut self, purchase: &Purchase, answer: Result<Delivery, NoAnswer>, now: Timestamp) {
        use ConditionType::Notified;
        let email = &purchase.email;
        match answer {
            Ok(Delivery::Sent) => {
                let message = format!("The mail server accepted the message to {email}.");
                self.set(Notified, Some(true), Reason::Sent, &message, now);
                self.status.retry = None;
                self.happened(OrderEvent::normal(Reason::Sent, "Notify", message), now);
            }
            Ok(Delivery::Underway { last_error }) => {
                let message = format!("The message to {email} is stored; the mail server has not accepted it yet.");
                let error = last_error.unwrap_or_else(|| "the mail server has not answered yet".to_owned());
                if self.set(Notified, Some(false), Reason::Delivering, &message, now) {
                    self.happened(OrderEvent::warning(Reason::Delivering, "Notify", format!("{message} {error}")), now);
                }
                self.failed(RetryStep::Notification, &error, now);
            }
            Ok(Delivery::Refused { why }) => {
                let message = format!("The message to {email} cannot be delivered: {why}");
                self.set(Notified, Some(false), Reason::Undeliverable, &message, now);
                self.status.retry = None;
                self.happened(OrderEvent::warning(Reason::Undeliverable, "Notify", message), now);
            }
            Ok(Delivery::DeadLettered { why }) => {
                let message =
                    format!("The message to {email} was given up; it can be sent again on request. The last error: {why}");
                self.set(Notified, Some(false), Reason::DeadLettered, &message, now);
                self.status.retry = None;
                self.happened(OrderEvent::warning(Reason::DeadLettered, "Notify", message), now);
            }
            Err(NoAnswer(error)) => {
                let message = "The notify service has not taken the message; it is asked again.";
                if self.set(Notified, None, Reason::NotifyUnavailable, message, now) {
                    self.happened(OrderEvent::warning(Reason::NotifyUnavailable, "Notify", format!("{message} {error}")), now);
                }
                self.failed(RetryStep::Notification, &error, now);
            }
        }
    }

    /// Refuses an order that cannot be read.
    pub fn invalid(&mut self, problem: &str, now: Timestamp) {
        let message = format!("The order cannot be worked on: {problem}");
        self.set(ConditionType::Paid, Some(false), Reason::InvalidOrder, &message, now);
        self.set(ConditionType::Succeeded, Some(false), Reason::InvalidOrder, &message, now);
        self.status.retry = None;
        self.happened(OrderEvent::warning(Reason::InvalidOrder, "Read", message), now);
    }

    /// Sets a condition. Returns `true` if its reason changed, which is worth an Event.
    fn set(&mut self, kind: ConditionType, status: Option<bool>, reason: Reason, message: &str, now: Timestamp) -> bool {
        let before = conditions::find(&self.status.conditions, kind).map(|condition| condition.reason.clone());
        conditions::set(&mut self.status.conditions, kind, status, reason, message.to_owned(), self.generation, now);
        self.status.observed_generation = self.generation;
        before.as_deref() != Some(reason.as_str())
    }

    /// Makes the step that failed due now, because its reply arrived late.
    pub fn answered_late(&mut self, now: Timestamp) {
        if let Some(retry) = &mut self.status.retry {
            retry.next_attempt_time = MicroTime(now);
        }
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

/// Explains in words why a charge was refused.
fn explain(purchase: &Purchase, refusal: Refusal, balance: Option<Money>) -> String {
    let Purchase { login, amount, .. } = purchase;
    match refusal {
        Refusal::AccountNotFound => format!("There is no account {login}; register it first."),
        Refusal::Cancelled => "The charge was closed before it was made; nothing was charged.".to_owned(),
        Refusal::DeadlineExceeded => "The deadline passed before the charge was begun; nothing was charged.".to_owned(),
        Refusal::InsufficientFunds => format!(
            "The balance of {login} is {}, the order's amount {amount}; nothing was charged.",
            balance.unwrap_or_default()
        ),
        // These are not refusals of a charge. They have their own texts.
        Refusal::Refunded | Refusal::InvalidOrder => format!("Nothing was charged to {login}."),
    }
}

/// The delay after a failure: 0.5 s, 1 s, 2 s and so on with the number of earlier failures in a
/// row, at most [`LONGEST_PAUSE`].
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
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        Purchase::read("uid", 1, &spec).unwrap()
    }

    fn builder() -> StatusBuilder {
        StatusBuilder::new(OrderStatus::default(), Some(1))
    }

    #[test]
    fn no_answer_is_unknown_and_never_a_refusal() {
        let mut order = builder();
        for attempt in 1..=3 {
            order.paid(&purchase(), Err(NoAnswer("timeout".into())), at(attempt));
            assert_eq!(order.status.outcome(), Outcome::Undecided);
        }
        let retry = order.status.retry.clone().unwrap();
        assert_eq!((retry.step, retry.attempts), (RetryStep::Payment, 3));
        assert_eq!(retry.next_attempt_time.0, at(3) + Duration::from_secs(2));
        assert_eq!(order.events.len(), 1, "one Event, not one an attempt");

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
            let mut order = builder();
            order.paid(&purchase(), Ok(Payment::Charged { balance: Money::ZERO }), at(1));
            order.notified(&purchase(), answer, at(2));
            assert_eq!(order.status.outcome(), Outcome::Paid);
            assert!(!order.status.is_notified());
        }
    }

    /// All fields of a status and its events, one per line.
    fn lines(builder: &StatusBuilder) -> String {
        let status = &builder.status;
        let second = |time: Timestamp| time.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64();
        let mut lines: Vec<String> = Vec::new();
        for condition in &status.conditions {
            let (generation, time) =
                (condition.observed_generation.unwrap_or_default(), second(condition.last_transition_time.0));
            let (type_, is, reason) = (&condition.type_, &condition.status, &condition.reason);
            lines.push(format!("{type_}={is} {reason} generation {generation} since {time}: {}", condition.message));
        }
        if let Some(charge) = &status.charge {
            lines.push(format!("charge {} under {}", charge.amount, charge.key));
        }
        for (what, amount) in [("balance", status.balance), ("refunded", status.refunded)] {
            lines.extend(amount.map(|amount| format!("{what} {amount}")));
        }
        for (what, number) in [("attempt", status.attempt), ("resends", status.resends)] {
            lines.extend(number.map(|number| format!("{what} {number}")));
        }
        if let Some(Retry { step, attempts, next_attempt_time, last_error }) = &status.retry {
            lines.push(format!("{step:?} failed {attempts} times, next at {}: {last_error}", second(next_attempt_time.0)));
        }
        for entry in &status.history {
            lines.push(format!("history {}: {} {}: {}", second(entry.time.0), entry.action, entry.reason, entry.message));
        }
        for OrderEvent { type_, reason, action, note, round } in &builder.events {
            lines.push(format!("event {type_} {reason} {action} {round}: {note}"));
        }
        lines.push(format!("observed generation {:?}", status.observed_generation));
        lines.join("\n")
    }

    fn minor(minor: i64) -> Money {
        Money::from_minor(minor)
    }

    fn charged() -> StatusBuilder {
        let mut order = builder();
        order.paid(&purchase(), Ok(Payment::Charged { balance: minor(9_000) }), at(1));
        order
    }

    #[test]
    fn a_charge_and_its_message_are_recorded_whole() {
        let mut order = charged();
        order.notified(&purchase(), Ok(Delivery::Sent), at(2));
        assert_eq!(
            lines(&order),
            "Paid=True Paid generation 1 since 1: Charged 10.00 to a; the balance is now 90.00.\n\
             Succeeded=True Paid generation 1 since 1: Charged 10.00 to a; the balance is now 90.00.\n\
             Notified=True Sent generation 1 since 2: The mail server accepted the message to a@b.cd.\n\
             charge 10.00 under uid\n\
             balance 90.00\n\
             history 1: Charge Paid: Charged 10.00 to a; the balance is now 90.00.\n\
             history 2: Notify Sent: The mail server accepted the message to a@b.cd.\n\
             event Normal Paid Charge 1: Charged 10.00 to a; the balance is now 90.00.\n\
             event Normal Sent Notify 1: The mail server accepted the message to a@b.cd.\n\
             observed generation Some(1)"
        );
    }

    #[test]
    fn a_refund_follows_its_failure_and_is_told_anew() {
        let mut order = charged();
        order.notified(&purchase(), Ok(Delivery::Sent), at(2));
        order.refunded(&purchase(), Err(NoAnswer("away".into())), at(3));
        order.refunded(&purchase(), Err(NoAnswer("still away".into())), at(4));
        let pending = lines(&order);
        for line in [
            "Succeeded=True RefundPending generation 1 since 1: The order was cancelled after it was charged; billing is asked to give the charge back until it does.",
            "Notified=True Sent generation 1 since 2: The mail server accepted the message to a@b.cd.",
            "Refund failed 2 times, next at 5: still away",
            "event Warning RefundPending Refund 1: The order was cancelled after it was charged; billing is asked to give the charge back until it does. away",
        ] {
            assert_eq!(pending.lines().filter(|found| *found == line).count(), 1, "{line}\n{pending}");
        }
        order.refunded(&purchase(), Ok(minor(10_000)), at(5));
        let given_back = lines(&order);
        let message = "Gave 10.00 back to a; the balance is now 100.00.";
        for line in [
            format!("Paid=False Refunded generation 1 since 5: {message}"),
            format!("Succeeded=False Refunded generation 1 since 5: {message}"),
            "balance 100.00".to_owned(),
            "refunded 10.00".to_owned(),
            "charge 10.00 under uid".to_owned(),
            format!("history 5: Refund Refunded: {message}"),
            format!("event Normal Refunded Refund 2: {message}"),
        ] {
            assert_eq!(given_back.lines().filter(|found| *found == line).count(), 1, "{line}\n{given_back}");
        }
        assert!(!given_back.contains("Notified") && !given_back.contains("failed"), "{given_back}");
    }

    #[test]
    fn each_refusal_says_why_and_leaves_no_charge() {
        let refused = |refusal, balance| Ok(Payment::Refused { refusal, balance });
        for (cancelled, refusal, balance, shown, action, message) in [
            (
                None,
                Refusal::InsufficientFunds,
                Some(900),
                "InsufficientFunds",
                "Charge",
                "The balance of a is 9.00, the order's amount 10.00; nothing was charged.",
            ),
            (None, Refusal::AccountNotFound, None, "AccountNotFound", "Charge", "There is no account a; register it first."),
            (
                Some(true),
                Refusal::Cancelled,
                Some(900),
                "Cancelled",
                "Cancel",
                "The charge was closed before it was made; nothing was charged.",
            ),
            (
                Some(false),
                Refusal::Cancelled,
                Some(900),
                "DeadlineExceeded",
                "Cancel",
                "The deadline passed before the charge was begun; nothing was charged.",
            ),
            (
                Some(true),
                Refusal::InsufficientFunds,
                Some(900),
                "InsufficientFunds",
                "Cancel",
                "The balance of a is 9.00, the order's amount 10.00; nothing was charged.",
            ),
            (
                Some(false),
                Refusal::InsufficientFunds,
                Some(900),
                "InsufficientFunds",
                "Cancel",
                "The balance of a is 9.00, the order's amount 10.00; nothing was charged.",
            ),
        ] {
            let mut order = builder();
            let answer = refused(refusal, balance.map(minor));
            match cancelled {
                None => order.paid(&purchase(), answer, at(1)),
                Some(cancelled) => order.closed(&purchase(), answer, cancelled, at(1)),
            }
            let balance = balance.map_or(String::new(), |balance| format!("balance {}\n", minor(balance)));
            assert_eq!(
                lines(&order),
                format!(
                    "Paid=False {shown} generation 1 since 1: {message}\n\
                     Succeeded=False {shown} generation 1 since 1: {message}\n\
                     {balance}\
                     history 1: {action} {shown}: {message}\n\
                     event Warning {shown} {action} 1: {message}\n\
                     observed generation Some(1)"
                )
            );
        }
    }

    #[test]
    fn closing_finds_a_charge_that_landed_or_asks_again() {
        let mut order = builder();
        for second in [1, 2] {
            order.closed(&purchase(), Err(NoAnswer("reset".into())), true, at(second));
        }
        let message =
            "Billing has not said yet whether the charge was made; it is asked again, and the charge closed or given back.";
        assert_eq!(
            lines(&order),
            format!(
                "Paid=Unknown PaymentUnknown generation 1 since 1: {message}\n\
                 Succeeded=Unknown Processing generation 1 since 1: Waiting for the payment.\n\
                 Cancellation failed 2 times, next at 3: reset\n\
                 history 1: Cancel PaymentUnknown: {message} Nothing is charged twice. reset\n\
                 event Warning PaymentUnknown Cancel 1: {message} Nothing is charged twice. reset\n\
                 observed generation Some(1)"
            )
        );
        order.closed(&purchase(), Ok(Payment::Charged { balance: minor(5) }), true, at(3));
        assert_eq!((order.status.outcome(), order.status.retry), (Outcome::Paid, None));
        assert_eq!(order.status.charge.map(|charge| charge.amount), Some(minor(1_000)));
    }

    #[test]
    fn another_attempt_forgets_what_the_one_before_came_to() {
        let mut order = builder();
        order.paid(&purchase(), Ok(Payment::Refused { refusal: Refusal::InsufficientFunds, balance: Some(minor(1)) }), at(1));
        order.notified(&purchase(), Ok(Delivery::Sent), at(2));
        order.retried(2, at(3));
        let again = lines(&order);
        for line in [
            "Paid=Unknown Processing generation 1 since 3: Charging again as asked: attempt 2.",
            "Succeeded=Unknown Processing generation 1 since 3: Charging again as asked: attempt 2.",
            "attempt 2",
            "history 3: Retry Processing: Charging again as asked: attempt 2.",
            "event Normal Processing Retry 2: Charging again as asked: attempt 2.",
        ] {
            assert_eq!(again.lines().filter(|found| *found == line).count(), 1, "{line}\n{again}");
        }
        assert!(!again.contains("balance 0.01\n") && !again.contains("Notified"), "{again}");
    }

    #[test]
    fn each_state_of_a_message_is_shown_and_what_is_final_is_not_tried_again() {
        let email = "The message to a@b.cd";
        for (answer, condition, retry, event) in [
            (
                Ok(Delivery::Underway { last_error: Some("451 later".into()) }),
                format!("Notified=False Delivering generation 1 since 2: {email} is stored; the mail server has not accepted it yet."),
                Some("Notification failed 1 times, next at 2.5: 451 later"),
                format!("event Warning Delivering Notify 1: {email} is stored; the mail server has not accepted it yet. 451 later"),
            ),
            (
                Ok(Delivery::Underway { last_error: None }),
                format!("Notified=False Delivering generation 1 since 2: {email} is stored; the mail server has not accepted it yet."),
                Some("Notification failed 1 times, next at 2.5: the mail server has not answered yet"),
                format!("event Warning Delivering Notify 1: {email} is stored; the mail server has not accepted it yet. the mail server has not answered yet"),
            ),
            (
                Ok(Delivery::Refused { why: "no such user".into() }),
                format!("Notified=False Undeliverable generation 1 since 2: {email} cannot be delivered: no such user"),
                None,
                format!("event Warning Undeliverable Notify 1: {email} cannot be delivered: no such user"),
            ),
            (
                Ok(Delivery::DeadLettered { why: "451".into() }),
                format!("Notified=False DeadLettered generation 1 since 2: {email} was given up; it can be sent again on request. The last error: 451"),
                None,
                format!("event Warning DeadLettered Notify 1: {email} was given up; it can be sent again on request. The last error: 451"),
            ),
            (
                Err(NoAnswer("503".into())),
                "Notified=Unknown NotifyUnavailable generation 1 since 2: The notify service has not taken the message; it is asked again.".to_owned(),
                Some("Notification failed 1 times, next at 2.5: 503"),
                "event Warning NotifyUnavailable Notify 1: The notify service has not taken the message; it is asked again. 503".to_owned(),
            ),
        ] {
            let mut order = charged();
            // The failure of an earlier step does not count for the message, and ends with it.
            order.failed(RetryStep::Payment, "before", at(1));
            order.notified(&purchase(), answer.clone(), at(2));
            let shown = lines(&order);
            for line in [&condition, &event] {
                assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
            }
            assert_eq!(shown.lines().find(|line| line.contains(" failed ")), retry, "{shown}");
            let published = order.events.len();
            order.notified(&purchase(), answer, at(3));
            if retry.is_some() {
                assert_eq!(order.events.len(), published, "one Event, not one an attempt");
            }
        }
    }

    #[test]
    fn a_message_sent_again_shows_as_under_way() {
        let mut order = charged();
        order.notified(&purchase(), Ok(Delivery::DeadLettered { why: "451".into() }), at(2));
        order.failed(RetryStep::Notification, "before", at(2));
        order.resent(1, at(3));
        let shown = lines(&order);
        for line in [
            "Notified=False Delivering generation 1 since 2: The message is sent again as asked.",
            "resends 1",
            "history 3: Resend Delivering: The message is sent again as asked.",
            "event Normal Delivering Resend 2: The message is sent again as asked.",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
        }
        assert!(!shown.contains(" failed "), "{shown}");
    }

    #[test]
    fn an_order_that_cannot_be_read_is_refused_and_not_tried_again() {
        let mut order = builder();
        order.failed(RetryStep::Payment, "before", at(1));
        order.invalid("amount: has more than two decimal places", at(2));
        let message = "The order cannot be worked on: amount: has more than two decimal places";
        assert_eq!(
            lines(&order),
            format!(
                "Paid=False InvalidOrder generation 1 since 2: {message}\n\
                 Succeeded=False InvalidOrder generation 1 since 2: {message}\n\
                 history 2: Read InvalidOrder: {message}\n\
                 event Warning InvalidOrder Read 1: {message}\n\
                 observed generation Some(1)"
            )
        );
    }

    #[test]
    fn a_late_reply_makes_what_failed_due_at_once() {
        let mut order = builder();
        order.answered_late(at(1));
        assert_eq!(order.status.retry, None);
        order.paid(&purchase(), Err(NoAnswer("timeout".into())), at(2));
        order.answered_late(at(2));
        assert_eq!(order.status.retry.map(|retry| (retry.attempts, retry.next_attempt_time.0)), Some((1, at(2))));
    }

    #[test]
    fn an_error_is_kept_to_its_bound() {
        let mut order = builder();
        order.paid(&purchase(), Err(NoAnswer("é".repeat(1000))), at(1));
        assert_eq!(order.status.retry.map(|retry| retry.last_error.chars().count()), Some(512));
        assert_eq!(order.status.history[0].message.chars().count(), 512);
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        assert_eq!([0, 1, 2, 7, 99].map(pause), [500, 1000, 2000, 60_000, 60_000].map(Duration::from_millis));
    }
}
