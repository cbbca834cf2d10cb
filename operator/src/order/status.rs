//! Builds the next status of an order from the results of its steps. This module does no I/O.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use orders_crds::{
    Charge, ConditionType, HistoryEntry, Money, Order, OrderStatus, Outcome, Reason, Refusal, Retry, RetryStep, conditions,
};

use crate::{
    kube::events::{NOTIFY, OrderEvent},
    ports::{Delivery, Payment, Purchase, UnknownResult},
};

/// The delay after the first failure. It doubles with each further failure.
const INITIAL_BACKOFF: Duration = Duration::from_millis(500);

/// The longest delay, so that an order continues within a minute after a service is repaired.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The longest error text kept in a status, in characters.
const MAX_ERROR: usize = 512;

/// Builds the next status of an order, and collects the events.
#[derive(Clone, Debug)]
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

    /// Records the result of the charge.
    pub fn record_charge(&mut self, purchase: &Purchase, result: Result<Payment, UnknownResult>, now: Timestamp) {
        match result {
            Ok(Payment::Charged { balance }) => self.set_charged(purchase, balance, now),
            Ok(Payment::Refused { refusal, balance }) => self.set_refused(purchase, "Charge", refusal, balance, now),
            Err(UnknownResult(error)) => {
                let message = "It is not known yet whether the charge was made; the request is retried with the same key.";
                self.set_unknown("Charge", message, &error, now);
                self.schedule_retry(RetryStep::Payment, &error, now);
            }
        }
    }

    /// Records the result of closing the charge. The charge was closed because the order
    /// `is_cancelled`, otherwise because its deadline passed.
    pub fn record_close(
        &mut self,
        purchase: &Purchase,
        result: Result<Payment, UnknownResult>,
        is_cancelled: bool,
        now: Timestamp,
    ) {
        match result {
            Ok(Payment::Charged { balance }) => self.set_charged(purchase, balance, now),
            Ok(Payment::Refused { refusal: Refusal::Cancelled, balance }) if !is_cancelled => {
                self.set_refused(purchase, "Cancel", Refusal::DeadlineExceeded, balance, now);
            }
            Ok(Payment::Refused { refusal, balance }) => self.set_refused(purchase, "Cancel", refusal, balance, now),
            Err(UnknownResult(error)) => {
                let message = "It is not known yet whether the charge was made; the request to close it is retried.";
                self.set_unknown("Cancel", message, &error, now);
                self.schedule_retry(RetryStep::Cancellation, &error, now);
            }
        }
    }

    /// Records the result of the refund: the balance right after it.
    pub fn record_refund(&mut self, purchase: &Purchase, result: Result<Money, UnknownResult>, now: Timestamp) {
        use ConditionType::{Paid, Succeeded};
        match result {
            Ok(balance) => {
                let message = format!("Refunded {} to {}; the balance is now {balance}.", purchase.amount, purchase.login);
                self.status.refunded = Some(purchase.amount);
                self.status.balance = Some(balance);
                self.set(Paid, Some(false), Reason::Refunded, &message, now);
                self.set(Succeeded, Some(false), Reason::Refunded, &message, now);
                self.begin_notification();
                self.add_event(OrderEvent::normal(Reason::Refunded, "Refund", message), now);
            }
            Err(UnknownResult(error)) => {
                let message = "The order was cancelled after it was charged; the refund is retried until it succeeds.";
                if self.set(Succeeded, Some(true), Reason::RefundPending, message, now) {
                    self.add_event(
                        OrderEvent::warning(Reason::RefundPending, "Refund", message.to_owned()).because_of(&error),
                        now,
                    );
                }
                self.schedule_retry(RetryStep::Refund, &error, now);
            }
        }
    }

    /// Records that the charge is voided, because the order was deleted before its customer was told of
    /// the charge.
    pub fn record_void(&mut self, purchase: &Purchase, now: Timestamp) {
        let message = format!(
            "The order was deleted before its customer was notified; the charge of {} to {} is voided.",
            purchase.amount, purchase.login
        );
        (self.status.balance, self.status.charge) = (None, None);
        self.set(ConditionType::Paid, Some(false), Reason::Cancelled, &message, now);
        self.set(ConditionType::Succeeded, Some(false), Reason::Cancelled, &message, now);
        self.begin_notification();
        self.add_event(OrderEvent::warning(Reason::Cancelled, "Void", message), now);
    }

    /// Records that the archive did not reply whether it has an order of this name.
    pub fn record_lookup_failure(&mut self, UnknownResult(error): &UnknownResult, now: Timestamp) {
        let message = "The archive has not replied whether an order of this name exists; nothing is charged until then.";
        if self.set(ConditionType::Paid, None, Reason::ArchiveUnavailable, message, now) {
            self.add_event(OrderEvent::warning(Reason::ArchiveUnavailable, "Adopt", message.to_owned()).because_of(error), now);
        }
        self.set(ConditionType::Succeeded, None, Reason::Processing, "Waiting for the archive.", now);
        self.schedule_retry(RetryStep::Payment, error, now);
    }

    /// Takes over the outcome of an archived order that has the same name and the same spec.
    pub fn adopt(&mut self, archived: &Order, now: Timestamp) {
        let from = archived.key_uid().to_owned();
        let archived = archived.status.clone().unwrap_or_default();
        let succeeded = conditions::find(&archived.conditions, ConditionType::Succeeded);
        let reason = succeeded.and_then(|condition| condition.reason.parse().ok()).unwrap_or(Reason::Processing);
        let message = format!(
            "The archive has an order of this name with the same spec; its outcome is taken over. {}",
            succeeded.map_or("", |condition| &condition.message)
        );
        for condition in &archived.conditions {
            if let (Ok(kind), Ok(reason)) = (condition.type_.parse(), condition.reason.parse()) {
                let status = match &*condition.status {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                };
                let message = if kind == ConditionType::Succeeded { message.clone() } else { condition.message.clone() };
                self.set(kind, status, reason, &message, now);
            }
        }
        let OrderStatus { balance, charge, refunded, attempt, resends, .. } = archived;
        self.status = OrderStatus {
            adopted_from: Some(from),
            balance,
            charge,
            refunded,
            attempt,
            resends,
            retry: None,
            ..self.status.clone()
        };
        self.add_event(OrderEvent::normal(reason, "Adopt", message), now);
    }

    /// Refuses an order whose name another order had before, with another spec or without a record in the
    /// archive.
    pub fn refuse_name(&mut self, purchase: &Purchase, now: Timestamp) {
        self.set_refused(purchase, "Adopt", Refusal::AlreadyExists, None, now);
    }

    /// Begins another attempt to charge.
    pub fn begin_attempt(&mut self, attempt: i32, now: Timestamp) {
        let message = format!("Retrying the charge as requested: attempt {attempt}.");
        self.status.attempt = Some(attempt);
        (self.status.balance, self.status.charge, self.status.refunded) = (None, None, None);
        self.set(ConditionType::Paid, None, Reason::Processing, &message, now);
        self.set(ConditionType::Succeeded, None, Reason::Processing, &message, now);
        self.begin_notification();
        self.add_event(OrderEvent::normal(Reason::Processing, "Retry", message), now);
    }

    /// Begins the requested resend of the message.
    pub fn begin_resend(&mut self, resends: i32, now: Timestamp) {
        let message = "Resending the message as requested.";
        self.status.resends = Some(resends);
        self.set(ConditionType::Notified, Some(false), Reason::Delivering, message, now);
        self.status.retry = None;
        self.add_event(OrderEvent::normal(Reason::Delivering, "Resend", message.to_owned()), now);
    }

    fn set_charged(&mut self, purchase: &Purchase, balance: Money, now: Timestamp) {
        let message = format!("Charged {} to {}; the balance is now {balance}.", purchase.amount, purchase.login);
        self.status.charge = Some(Charge { key: purchase.key.clone(), amount: purchase.amount });
        self.status.balance = Some(balance);
        self.set(ConditionType::Paid, Some(true), Reason::Paid, &message, now);
        self.set(ConditionType::Succeeded, Some(true), Reason::Paid, &message, now);
        self.begin_notification();
        self.add_event(OrderEvent::normal(Reason::Paid, "Charge", message), now);
    }

    fn set_refused(
        &mut self,
        purchase: &Purchase,
        action: &'static str,
        refusal: Refusal,
        balance: Option<Money>,
        now: Timestamp,
    ) {
        let (reason, message) = (refusal.reason(), explain(purchase, refusal, balance));
        self.status.balance = balance;
        self.set(ConditionType::Paid, Some(false), reason, &message, now);
        self.set(ConditionType::Succeeded, Some(false), reason, &message, now);
        self.begin_notification();
        self.add_event(OrderEvent::warning(reason, action, message), now);
    }

    fn set_unknown(&mut self, action: &'static str, message: &str, error: &str, now: Timestamp) {
        if self.set(ConditionType::Paid, None, Reason::PaymentUnknown, message, now) {
            let note = format!("{message} Nothing is charged twice.");
            self.add_event(OrderEvent::warning(Reason::PaymentUnknown, action, note).because_of(error), now);
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
    fn add_event(&mut self, mut event: OrderEvent, now: Timestamp) {
        // None of these numbers ever decreases, so a later round has a higher number.
        let refunds = i32::from(self.status.refunded.is_some());
        event.round = self.status.attempt() + self.status.resends.unwrap_or(0) + refunds;
        self.status.push_history(HistoryEntry {
            time: Time(now),
            action: event.action.to_owned(),
            reason: event.reason.as_str().to_owned(),
            message: event.note.chars().take(MAX_ERROR).collect(),
        });
        self.events.push(event);
    }

    /// Records the state of the customer's message.
    pub fn record_delivery(&mut self, purchase: &Purchase, result: Result<Delivery, UnknownResult>, now: Timestamp) {
        use ConditionType::Notified;
        let email = &purchase.email;
        match result {
            Ok(Delivery::Sent) => {
                let message = format!("The mail server accepted the message to {email}.");
                self.set(Notified, Some(true), Reason::Sent, &message, now);
                self.status.retry = None;
                self.add_event(OrderEvent::normal(Reason::Sent, NOTIFY, message), now);
            }
            Ok(Delivery::Delivering { last_error }) => {
                let message = format!("The message to {email} is stored; the mail server has not accepted it yet.");
                let error = last_error.unwrap_or_else(|| "the mail server has not replied yet".to_owned());
                if self.set(Notified, Some(false), Reason::Delivering, &message, now) {
                    self.add_event(OrderEvent::warning(Reason::Delivering, NOTIFY, message).because_of(&error), now);
                }
                self.schedule_retry(RetryStep::Notification, &error, now);
            }
            Ok(Delivery::Undeliverable { error }) => {
                let message = format!("The message to {email} cannot be delivered.");
                let with_error = format!("The message to {email} cannot be delivered: {error}");
                self.set(Notified, Some(false), Reason::Undeliverable, &with_error, now);
                self.status.retry = None;
                self.add_event(OrderEvent::warning(Reason::Undeliverable, NOTIFY, message).because_of(&error), now);
            }
            Ok(Delivery::DeadLettered { error }) => {
                let message = format!("The message to {email} was not delivered, and delivery was stopped; it can be resent.");
                self.set(Notified, Some(false), Reason::DeadLettered, &format!("{message} Last error: {error}"), now);
                self.status.retry = None;
                self.add_event(OrderEvent::warning(Reason::DeadLettered, NOTIFY, message).because_of(&error), now);
            }
            Err(UnknownResult(error)) => {
                let message = "The notify service has not accepted the message; the request is retried.";
                if self.set(Notified, None, Reason::NotifyUnavailable, message, now) {
                    self.add_event(
                        OrderEvent::warning(Reason::NotifyUnavailable, NOTIFY, message.to_owned()).because_of(&error),
                        now,
                    );
                }
                self.schedule_retry(RetryStep::Notification, &error, now);
            }
        }
    }

    /// Refuses an order that cannot be read.
    pub fn refuse_invalid(&mut self, problem: &str, now: Timestamp) {
        let message = format!("The order cannot be processed: {problem}");
        self.set(ConditionType::Paid, Some(false), Reason::InvalidOrder, &message, now);
        self.set(ConditionType::Succeeded, Some(false), Reason::InvalidOrder, &message, now);
        self.status.retry = None;
        self.add_event(OrderEvent::warning(Reason::InvalidOrder, "Read", message), now);
    }

    /// Sets a condition. Returns `true` if its reason changed, which requires an Event.
    fn set(&mut self, kind: ConditionType, status: Option<bool>, reason: Reason, message: &str, now: Timestamp) -> bool {
        let before = conditions::find(&self.status.conditions, kind).map(|condition| condition.reason.clone());
        conditions::set(&mut self.status.conditions, kind, status, reason, message.to_owned(), self.generation, now);
        if kind == ConditionType::Succeeded {
            let is_decided = Some(self.status.outcome() != Outcome::Undecided);
            let kind = ConditionType::Decided;
            conditions::set(&mut self.status.conditions, kind, is_decided, reason, message.to_owned(), self.generation, now);
        }
        self.status.observed_generation = self.generation;
        before.as_deref() != Some(reason.as_str())
    }

    /// Records that the status describes the current generation of the spec, also if the change of
    /// the spec required no step. `kubectl wait` compares the generation with that of the condition.
    pub fn observe_generation(&mut self) {
        if !is_generation_observed(&self.status, self.generation) {
            self.status.observed_generation = self.generation;
            self.status.conditions.iter_mut().for_each(|condition| condition.observed_generation = self.generation);
        }
    }

    /// Makes the step that failed due now, because its reply arrived late.
    pub fn retry_now(&mut self, now: Timestamp) {
        if let Some(retry) = &mut self.status.retry {
            retry.next_attempt_time = MicroTime(now);
        }
    }

    /// Records the failure of a step, and schedules its retry.
    fn schedule_retry(&mut self, step: RetryStep, error: &str, now: Timestamp) {
        let failures = self.status.retry.take().filter(|retry| retry.step == step).map_or(0, |retry| retry.attempts);
        self.status.retry = Some(Retry {
            step,
            attempts: failures.saturating_add(1),
            next_attempt_time: MicroTime(now + backoff(failures)),
            last_error: error.chars().take(MAX_ERROR).collect(),
        });
    }
}

/// Whether the status describes this generation of the spec. The status of a newer version stays as
/// it is.
pub fn is_generation_observed(status: &OrderStatus, generation: Option<i64>) -> bool {
    generation.is_none() || status.observed_generation == generation || status.outcome() == Outcome::Unknown
}

/// Explains why a charge was refused.
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
        Refusal::AlreadyExists => {
            "Another order had this name before, and a name is good once: choose another name. Nothing was charged.".to_owned()
        }
        // These are not refusals of a charge. They have their own messages.
        Refusal::Refunded | Refusal::InvalidOrder => format!("Nothing was charged to {login}."),
    }
}

/// The delay after a failure: 0.5 s, 1 s, 2 s and so on with the number of earlier failures in a
/// row, at most [`MAX_BACKOFF`].
fn backoff(failures: i32) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(0).min(16);
    MAX_BACKOFF.min(INITIAL_BACKOFF * (1 << doublings))
}

#[cfg(test)]
mod tests {
    use orders_crds::OrderSpec;

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
    fn a_charge_without_a_reply_is_unknown_and_never_refused() {
        let mut order = builder();
        for attempt in 1..=3 {
            order.record_charge(&purchase(), Err(UnknownResult("timeout".into())), at(attempt));
            assert_eq!(order.status.outcome(), Outcome::Undecided);
        }
        let retry = order.status.retry.clone().unwrap();
        assert_eq!((retry.step, retry.attempts), (RetryStep::Payment, 3));
        assert_eq!(retry.next_attempt_time.0, at(3) + Duration::from_secs(2));
        assert_eq!(order.events.len(), 1, "one Event, not one for each attempt");

        order.record_charge(&purchase(), Ok(Payment::Charged { balance: Money::ZERO }), at(9));
        assert_eq!(order.status.outcome(), Outcome::Paid);
        assert_eq!(order.status.retry, None, "a retry shows only while something fails");
    }

    #[test]
    fn a_void_cancels_a_charged_order_and_its_message_is_to_be_sent() {
        let mut order = charged();
        order.record_delivery(&purchase(), Ok(Delivery::Sent), at(2));
        order.record_void(&purchase(), at(3));
        assert_eq!(order.status.outcome(), Outcome::Refused(Refusal::Cancelled));
        assert_eq!((order.status.charge.clone(), order.status.balance), (None, None));
        assert!(order.status.is_message_open(), "the message about the charge does not count");
        let entry = order.status.history.last().unwrap();
        assert_eq!((&*entry.action, &*entry.reason), ("Void", "Cancelled"));
        assert!(entry.message.contains("the charge of 10.00 to a is voided"), "{entry:?}");
    }

    #[test]
    fn an_order_whose_name_cannot_be_looked_up_is_undecided_and_one_event_says_so() {
        let mut order = builder();
        for attempt in 1..=3 {
            order.record_lookup_failure(&UnknownResult("timeout".into()), at(attempt));
        }
        let retry = order.status.retry.clone().unwrap();
        assert_eq!((order.status.outcome(), retry.step, retry.attempts), (Outcome::Undecided, RetryStep::Payment, 3));
        assert_eq!(order.events.iter().map(|event| event.reason).collect::<Vec<_>>(), [Reason::ArchiveUnavailable]);
    }

    #[test]
    fn a_change_of_the_spec_that_needs_no_step_is_observed_by_all_conditions() {
        let mut order = charged();
        let before = order.status.clone();
        order.observe_generation();
        assert_eq!(order.status, before);

        let mut changed = StatusBuilder::new(before.clone(), Some(2));
        assert!(!is_generation_observed(&changed.status, Some(2)));
        changed.observe_generation();
        assert!(is_generation_observed(&changed.status, Some(2)) && changed.events.is_empty());
        assert!(changed.status.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
        let times = |status: &OrderStatus| status.conditions.iter().map(|c| c.last_transition_time.clone()).collect::<Vec<_>>();
        assert_eq!(times(&changed.status), times(&before));
    }

    #[test]
    fn the_status_of_a_newer_version_stays_as_it_is() {
        let mut status = charged().status;
        for condition in &mut status.conditions {
            (condition.status, condition.reason) = ("False".to_owned(), "ReasonOfANewerVersion".to_owned());
        }
        let mut order = StatusBuilder::new(status.clone(), Some(2));
        order.observe_generation();
        assert_eq!(order.status, status);
        assert!(is_generation_observed(&status, Some(2)), "no pass is due");
    }

    #[test]
    fn a_failed_message_never_changes_the_outcome() {
        for result in [
            Err(UnknownResult("unavailable".into())),
            Ok(Delivery::Delivering { last_error: None }),
            Ok(Delivery::Undeliverable { error: "no such address".into() }),
        ] {
            let mut order = builder();
            order.record_charge(&purchase(), Ok(Payment::Charged { balance: Money::ZERO }), at(1));
            order.record_delivery(&purchase(), result, at(2));
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
        for event @ OrderEvent { type_, reason, action, round, .. } in &builder.events {
            lines.push(format!("event {type_} {reason} {action} {round}: {}", event.full_note()));
        }
        lines.push(format!("observed generation {:?}", status.observed_generation));
        lines.join("\n")
    }

    fn minor(minor: i64) -> Money {
        Money::from_minor(minor)
    }

    fn charged() -> StatusBuilder {
        let mut order = builder();
        order.record_charge(&purchase(), Ok(Payment::Charged { balance: minor(9_000) }), at(1));
        order
    }

    #[test]
    fn a_charge_and_its_message_are_recorded_in_every_field() {
        let mut order = charged();
        order.record_delivery(&purchase(), Ok(Delivery::Sent), at(2));
        assert_eq!(
            lines(&order),
            "Paid=True Paid generation 1 since 1: Charged 10.00 to a; the balance is now 90.00.\n\
             Succeeded=True Paid generation 1 since 1: Charged 10.00 to a; the balance is now 90.00.\n\
             Decided=True Paid generation 1 since 1: Charged 10.00 to a; the balance is now 90.00.\n\
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
    fn a_refund_succeeds_after_a_failure_and_clears_the_notification() {
        let mut order = charged();
        order.record_delivery(&purchase(), Ok(Delivery::Sent), at(2));
        order.record_refund(&purchase(), Err(UnknownResult("timeout".into())), at(3));
        order.record_refund(&purchase(), Err(UnknownResult("another timeout".into())), at(4));
        let pending = lines(&order);
        for line in [
            "Succeeded=True RefundPending generation 1 since 1: The order was cancelled after it was charged; the refund is retried until it succeeds.",
            "Notified=True Sent generation 1 since 2: The mail server accepted the message to a@b.cd.",
            "Refund failed 2 times, next at 5: another timeout",
            "event Warning RefundPending Refund 1: The order was cancelled after it was charged; the refund is retried until it succeeds. timeout",
        ] {
            assert_eq!(pending.lines().filter(|found| *found == line).count(), 1, "{line}\n{pending}");
        }
        order.record_refund(&purchase(), Ok(minor(10_000)), at(5));
        let refunded = lines(&order);
        let message = "Refunded 10.00 to a; the balance is now 100.00.";
        for line in [
            format!("Paid=False Refunded generation 1 since 5: {message}"),
            format!("Succeeded=False Refunded generation 1 since 5: {message}"),
            format!("Decided=True Refunded generation 1 since 1: {message}"),
            "balance 100.00".to_owned(),
            "refunded 10.00".to_owned(),
            "charge 10.00 under uid".to_owned(),
            format!("history 5: Refund Refunded: {message}"),
            format!("event Normal Refunded Refund 2: {message}"),
        ] {
            assert_eq!(refunded.lines().filter(|found| *found == line).count(), 1, "{line}\n{refunded}");
        }
        assert!(!refunded.contains("Notified") && !refunded.contains("failed"), "{refunded}");
    }

    #[test]
    fn each_refusal_says_why_and_leaves_no_charge() {
        let refused = |refusal, balance| Ok(Payment::Refused { refusal, balance });
        for (is_cancelled, refusal, balance, reason, action, message) in [
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
            let result = refused(refusal, balance.map(minor));
            match is_cancelled {
                None => order.record_charge(&purchase(), result, at(1)),
                Some(is_cancelled) => order.record_close(&purchase(), result, is_cancelled, at(1)),
            }
            let balance = balance.map_or(String::new(), |balance| format!("balance {}\n", minor(balance)));
            assert_eq!(
                lines(&order),
                format!(
                    "Paid=False {reason} generation 1 since 1: {message}\n\
                     Succeeded=False {reason} generation 1 since 1: {message}\n\
                     Decided=True {reason} generation 1 since 1: {message}\n\
                     {balance}\
                     history 1: {action} {reason}: {message}\n\
                     event Warning {reason} {action} 1: {message}\n\
                     observed generation Some(1)"
                )
            );
        }
    }

    #[test]
    fn closing_is_retried_and_finds_a_charge_that_was_made() {
        let mut order = builder();
        for second in [1, 2] {
            order.record_close(&purchase(), Err(UnknownResult("reset".into())), true, at(second));
        }
        let message = "It is not known yet whether the charge was made; the request to close it is retried.";
        assert_eq!(
            lines(&order),
            format!(
                "Paid=Unknown PaymentUnknown generation 1 since 1: {message}\n\
                 Succeeded=Unknown Processing generation 1 since 1: Waiting for the payment.\n\
                 Decided=False Processing generation 1 since 1: Waiting for the payment.\n\
                 Cancellation failed 2 times, next at 3: reset\n\
                 history 1: Cancel PaymentUnknown: {message} Nothing is charged twice.\n\
                 event Warning PaymentUnknown Cancel 1: {message} Nothing is charged twice. reset\n\
                 observed generation Some(1)"
            )
        );
        order.record_close(&purchase(), Ok(Payment::Charged { balance: minor(5) }), true, at(3));
        assert_eq!((order.status.outcome(), order.status.retry), (Outcome::Paid, None));
        assert_eq!(order.status.charge.map(|charge| charge.amount), Some(minor(1_000)));
    }

    #[test]
    fn another_attempt_clears_the_result_of_the_previous_one() {
        let mut order = builder();
        order.record_charge(
            &purchase(),
            Ok(Payment::Refused { refusal: Refusal::InsufficientFunds, balance: Some(minor(1)) }),
            at(1),
        );
        order.record_delivery(&purchase(), Ok(Delivery::Sent), at(2));
        order.begin_attempt(2, at(3));
        let retried = lines(&order);
        for line in [
            "Paid=Unknown Processing generation 1 since 3: Retrying the charge as requested: attempt 2.",
            "Succeeded=Unknown Processing generation 1 since 3: Retrying the charge as requested: attempt 2.",
            "Decided=False Processing generation 1 since 3: Retrying the charge as requested: attempt 2.",
            "attempt 2",
            "history 3: Retry Processing: Retrying the charge as requested: attempt 2.",
            "event Normal Processing Retry 2: Retrying the charge as requested: attempt 2.",
        ] {
            assert_eq!(retried.lines().filter(|found| *found == line).count(), 1, "{line}\n{retried}");
        }
        assert!(!retried.contains("balance 0.01\n") && !retried.contains("Notified"), "{retried}");
    }

    #[test]
    fn each_state_of_a_message_is_recorded_and_a_final_state_has_no_retry() {
        let email = "The message to a@b.cd";
        for (result, condition, retry, event) in [
            (
                Ok(Delivery::Delivering { last_error: Some("451 later".into()) }),
                format!("Notified=False Delivering generation 1 since 2: {email} is stored; the mail server has not accepted it yet."),
                Some("Notification failed 1 times, next at 2.5: 451 later"),
                format!("event Warning Delivering Notify 1: {email} is stored; the mail server has not accepted it yet. 451 later"),
            ),
            (
                Ok(Delivery::Delivering { last_error: None }),
                format!("Notified=False Delivering generation 1 since 2: {email} is stored; the mail server has not accepted it yet."),
                Some("Notification failed 1 times, next at 2.5: the mail server has not replied yet"),
                format!("event Warning Delivering Notify 1: {email} is stored; the mail server has not accepted it yet. the mail server has not replied yet"),
            ),
            (
                Ok(Delivery::Undeliverable { error: "no such user".into() }),
                format!("Notified=False Undeliverable generation 1 since 2: {email} cannot be delivered: no such user"),
                None,
                format!("event Warning Undeliverable Notify 1: {email} cannot be delivered. no such user"),
            ),
            (
                Ok(Delivery::DeadLettered { error: "451".into() }),
                format!("Notified=False DeadLettered generation 1 since 2: {email} was not delivered, and delivery was stopped; it can be resent. Last error: 451"),
                None,
                format!("event Warning DeadLettered Notify 1: {email} was not delivered, and delivery was stopped; it can be resent. 451"),
            ),
            (
                Err(UnknownResult("503".into())),
                "Notified=Unknown NotifyUnavailable generation 1 since 2: The notify service has not accepted the message; the request is retried.".to_owned(),
                Some("Notification failed 1 times, next at 2.5: 503"),
                "event Warning NotifyUnavailable Notify 1: The notify service has not accepted the message; the request is retried. 503".to_owned(),
            ),
        ] {
            let mut order = charged();
            // The failure of an earlier step does not count for the message, and ends with it.
            order.schedule_retry(RetryStep::Payment, "before", at(1));
            order.record_delivery(&purchase(), result.clone(), at(2));
            let shown = lines(&order);
            for line in [&condition, &event] {
                assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
            }
            assert_eq!(shown.lines().find(|line| line.contains(" failed ")), retry, "{shown}");
            // The history is for customers, so no error of another service is in it.
            for error in ["no such user", "451", "503", "the mail server has not replied yet"] {
                assert!(!order.status.history.iter().any(|entry| entry.message.contains(error)), "{error}");
            }
            let published = order.events.len();
            order.record_delivery(&purchase(), result, at(3));
            if retry.is_some() {
                assert_eq!(order.events.len(), published, "one Event, not one for each attempt");
            }
        }
    }

    #[test]
    fn a_resend_sets_the_message_to_delivering() {
        let mut order = charged();
        order.record_delivery(&purchase(), Ok(Delivery::DeadLettered { error: "451".into() }), at(2));
        order.schedule_retry(RetryStep::Notification, "before", at(2));
        order.begin_resend(1, at(3));
        let shown = lines(&order);
        for line in [
            "Notified=False Delivering generation 1 since 2: Resending the message as requested.",
            "resends 1",
            "history 3: Resend Delivering: Resending the message as requested.",
            "event Normal Delivering Resend 2: Resending the message as requested.",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
        }
        assert!(!shown.contains(" failed "), "{shown}");
    }

    #[test]
    fn an_order_that_cannot_be_read_is_refused_and_not_retried() {
        let mut order = builder();
        order.schedule_retry(RetryStep::Payment, "before", at(1));
        order.refuse_invalid("amount: has more than two decimal places", at(2));
        let message = "The order cannot be processed: amount: has more than two decimal places";
        assert_eq!(
            lines(&order),
            format!(
                "Paid=False InvalidOrder generation 1 since 2: {message}\n\
                 Succeeded=False InvalidOrder generation 1 since 2: {message}\n\
                 Decided=True InvalidOrder generation 1 since 2: {message}\n\
                 history 2: Read InvalidOrder: {message}\n\
                 event Warning InvalidOrder Read 1: {message}\n\
                 observed generation Some(1)"
            )
        );
    }

    #[test]
    fn a_late_reply_makes_the_failed_step_due_at_once() {
        let mut order = builder();
        order.retry_now(at(1));
        assert_eq!(order.status.retry, None);
        order.record_charge(&purchase(), Err(UnknownResult("timeout".into())), at(2));
        order.retry_now(at(2));
        assert_eq!(order.status.retry.map(|retry| (retry.attempts, retry.next_attempt_time.0)), Some((1, at(2))));
    }

    #[test]
    fn an_error_is_truncated_to_its_limit() {
        let mut order = builder();
        order.record_charge(&purchase(), Err(UnknownResult("é".repeat(1000))), at(1));
        assert_eq!(order.status.retry.map(|retry| retry.last_error.chars().count()), Some(512));
        assert!(!order.status.history[0].message.contains('é'), "the history is for customers");
    }

    #[test]
    fn the_backoff_doubles_up_to_a_minute() {
        assert_eq!([0, 1, 2, 7, 99].map(backoff), [500, 1000, 2000, 60_000, 60_000].map(Duration::from_millis));
    }
}
