//! Changes of a placed order: cancel it, charge it again, send its message again. Each change is
//! written into the resource, where the operator reads it. A repeated request for a change has no
//! second effect.

use axum::http::StatusCode;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use orders_crds::{
    Order, OrderStatus, Outcome, Refusal,
    order::{ATTEMPT_ANNOTATION, MAX_ATTEMPTS, RESEND_ANNOTATION, asked_for},
};
use orders_service::Problem;
use serde_json::{Value, json};

use crate::{
    order_id::OrderId,
    orders::{CALL_TIMEOUT, Orders, no_such_order, unavailable},
    outcome::{State, Subscription},
};

/// The maximum number of attempts to write a change while others change the same order.
const TRIES: u8 = 5;

/// The result of a request for a change.
pub enum Asked {
    /// The change is complete.
    Done(Box<Order>),
    /// The change is in progress.
    Underway {
        /// The subscription to the states of the order.
        subscription: Box<Subscription>,
        /// The state in which the change is complete.
        awaited: Awaited,
    },
}

/// The state in which a change is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The order is decided and not paid, or no longer paid.
    Unpaid,
    /// This attempt to charge is decided.
    Attempt(i32),
    /// The message was sent again this many times.
    Resends(i32),
}

impl Awaited {
    /// Whether this state completes the change.
    pub fn is(self, state: State) -> bool {
        match (self, state) {
            (Awaited::Unpaid, State::Decided { outcome, .. }) => outcome != Outcome::Paid,
            (Awaited::Attempt(number), State::Decided { attempt, .. }) => attempt >= number,
            (Awaited::Resends(number), State::Decided { resends, message_done, .. }) => resends >= number && message_done,
            (_, State::Undecided | State::Deleted) => false,
        }
    }
}

/// The next step of a change, derived from the current order.
#[derive(Debug, PartialEq)]
enum Change {
    /// The order already has the requested state.
    Nothing,
    /// This patch must be written; then this state completes the change.
    Write(Value, Awaited),
    /// The change is already written; this state completes it.
    Await(Awaited),
    /// The order's state forbids the change, for this reason.
    Refuse(&'static str),
}

impl Orders {
    /// Cancels an order: it is never charged, or its charge is refunded.
    ///
    /// # Errors
    /// 404; 409 if the order was refused for another reason; 503 if the API server does not
    /// respond.
    pub async fn cancel(&self, id: OrderId) -> Result<Asked, Problem> {
        self.change(id, cancellation).await
    }

    /// Requests another attempt to charge a refused order.
    ///
    /// # Errors
    /// 404; 409 if the order was not refused for insufficient funds or a missing account, or was
    /// deleted; 503.
    pub async fn retry(&self, id: OrderId) -> Result<Asked, Problem> {
        self.change(id, another_attempt).await
    }

    /// Requests that a message whose delivery was given up be sent again.
    ///
    /// # Errors
    /// 404; 409 if the delivery was not given up, or the order was deleted; 503.
    pub async fn resend(&self, id: OrderId) -> Result<Asked, Problem> {
        self.change(id, another_message).await
    }

    /// Writes the change that `decide` returns, if the order is still at the version that `decide`
    /// was given.
    async fn change(&self, id: OrderId, decide: impl Fn(&Order) -> Change) -> Result<Asked, Problem> {
        let name = id.resource_name();
        let subscription = self.outcomes.subscribe(&name);
        for _ in 0..TRIES {
            let Some(order) = self.live(id).await? else { return self.change_archived(id, decide).await };
            let (mut patch, awaited) = match decide(&order) {
                Change::Nothing => return Ok(Asked::Done(Box::new(order))),
                Change::Refuse(why) => return Err(Problem::new(StatusCode::CONFLICT, why).with_id(id.number())),
                Change::Await(awaited) => return Ok(Asked::Underway { subscription: Box::new(subscription), awaited }),
                Change::Write(patch, awaited) => (patch, awaited),
            };
            patch["metadata"]["resourceVersion"] = json!(order.resource_version());
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let patching = self.api.patch(&name, &params, &patch);
            match tokio::time::timeout(CALL_TIMEOUT, patching).await {
                Ok(Ok(_)) => return Ok(Asked::Underway { subscription: Box::new(subscription), awaited }),
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {}
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                    return Err(no_such_order(id));
                }
                Ok(Err(error)) => return Err(unavailable(&error)),
                Err(timeout) => return Err(unavailable(&timeout)),
            }
        }
        Err(Problem::unavailable("the order is being changed by others all the time; try again").with_id(id.number()))
    }

    /// Answers for an archived order: it may already have the requested state, but it cannot be
    /// changed.
    async fn change_archived(&self, id: OrderId, decide: impl Fn(&Order) -> Change) -> Result<Asked, Problem> {
        let archived = self.archived(id).await?;
        let order = archived.ok_or_else(|| no_such_order(id))?;
        let why = match decide(&order) {
            Change::Nothing => return Ok(Asked::Done(Box::new(order))),
            Change::Refuse(why) => why,
            Change::Write(..) | Change::Await(_) => "the order is in the archive: it cannot be changed any more",
        };
        Err(Problem::new(StatusCode::CONFLICT, why).with_id(id.number()))
    }
}

/// The reason why an order that a newer version decided cannot be changed.
const UNKNOWN: &str = "the order was decided for a reason that this version does not know: try again after the upgrade";

fn cancellation(order: &Order) -> Change {
    let asked = order.spec.cancel_requested == Some(true);
    match order.outcome() {
        Outcome::Refused(Refusal::Cancelled | Refusal::Refunded) => Change::Nothing,
        Outcome::Refused(_) => Change::Refuse("the order was refused: nothing was charged, and there is nothing to cancel"),
        Outcome::Unknown => Change::Refuse(UNKNOWN),
        Outcome::Undecided | Outcome::Paid if asked => Change::Await(Awaited::Unpaid),
        Outcome::Undecided | Outcome::Paid => Change::Write(json!({"spec": {"cancelRequested": true}}), Awaited::Unpaid),
    }
}

fn another_attempt(order: &Order) -> Change {
    let status = order.status.clone().unwrap_or_default();
    let asked = asked_for(&order.metadata, ATTEMPT_ANNOTATION);
    match order.outcome() {
        Outcome::Undecided if status.attempt() > 1 || asked > status.attempt() => {
            Change::Await(Awaited::Attempt(asked.max(status.attempt())))
        }
        Outcome::Undecided => Change::Refuse("the order is not decided yet: its charge is still being tried"),
        Outcome::Paid => Change::Refuse("the order is paid: it is not charged again"),
        Outcome::Unknown => Change::Refuse(UNKNOWN),
        Outcome::Refused(_) if was_deleted(order) => Change::Refuse("the order was deleted: make a new one"),
        Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound) if order.spec.cancel_requested != Some(true) => {
            let next = status.attempt() + 1;
            match asked {
                _ if next > MAX_ATTEMPTS => Change::Refuse("the order was tried a hundred times: make a new one"),
                asked if asked >= next => Change::Await(Awaited::Attempt(asked)),
                _ => Change::Write(annotation(ATTEMPT_ANNOTATION, next), Awaited::Attempt(next)),
            }
        }
        Outcome::Refused(_) => Change::Refuse("the order was cancelled, was too late or cannot be read: make a new one"),
    }
}

fn another_message(order: &Order) -> Change {
    let status: OrderStatus = order.status.clone().unwrap_or_default();
    let next = status.resends.unwrap_or(0) + 1;
    match asked_for(&order.metadata, RESEND_ANNOTATION) {
        _ if order.outcome() == Outcome::Undecided => {
            Change::Refuse("the order is not decided yet: there is no message about it")
        }
        _ if order.outcome() == Outcome::Unknown => Change::Refuse(UNKNOWN),
        _ if order.outcome() == Outcome::Refused(Refusal::InvalidOrder) => {
            Change::Refuse("the order cannot be read: there is no message about it")
        }
        _ if status.is_notified() => Change::Refuse("the mail server has accepted the message already"),
        _ if was_deleted(order) => Change::Refuse("the order was deleted: its message is not sent again"),
        _ if !status.is_undeliverable() => Change::Refuse("the message is still being tried: it was not given up"),
        _ if next > MAX_ATTEMPTS => Change::Refuse("the message was sent again a hundred times"),
        asked if asked >= next => Change::Await(Awaited::Resends(asked)),
        _ => Change::Write(annotation(RESEND_ANNOTATION, next), Awaited::Resends(next)),
    }
}

/// Whether the order was deleted. The operator neither charges a deleted order again nor requests
/// its message again.
fn was_deleted(order: &Order) -> bool {
    order.metadata.deletion_timestamp.is_some()
}

fn annotation(name: &str, number: i32) -> Value {
    json!({"metadata": {"annotations": {name: number.to_string()}}})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use orders_crds::{ConditionType, OrderSpec, Reason, conditions};

    use super::*;

    fn order(succeeded: Option<bool>, reason: Reason) -> Order {
        let mut status = OrderStatus::default();
        let mut set = |kind, state, reason| {
            conditions::set(&mut status.conditions, kind, state, reason, String::new(), None, jiff::Timestamp::UNIX_EPOCH);
        };
        set(ConditionType::Succeeded, succeeded, reason);
        set(ConditionType::Notified, Some(true), Reason::Sent);
        Order { status: Some(status), ..Order::new("order-1", OrderSpec::default()) }
    }

    fn is_refused(change: &Change) -> bool {
        matches!(change, Change::Refuse(_))
    }

    #[test]
    fn what_is_paid_or_undecided_can_be_cancelled_once() {
        for mut order in [order(None, Reason::Processing), order(Some(true), Reason::Paid)] {
            assert!(matches!(cancellation(&order), Change::Write(_, Awaited::Unpaid)));
            order.spec.cancel_requested = Some(true);
            assert_eq!(cancellation(&order), Change::Await(Awaited::Unpaid));
        }
        assert_eq!(cancellation(&order(Some(false), Reason::Refunded)), Change::Nothing);
        assert!(is_refused(&cancellation(&order(Some(false), Reason::InsufficientFunds))));
    }

    #[test]
    fn only_what_was_refused_for_lack_of_money_is_charged_again() {
        let mut refused = order(Some(false), Reason::InsufficientFunds);
        assert!(matches!(another_attempt(&refused), Change::Write(_, Awaited::Attempt(2))));
        refused.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), "2".to_owned());
        assert_eq!(another_attempt(&refused), Change::Await(Awaited::Attempt(2)), "asked for already");
        refused.spec.cancel_requested = Some(true);
        assert!(is_refused(&another_attempt(&refused)));
        for other in [Reason::Cancelled, Reason::Refunded, Reason::DeadlineExceeded, Reason::InvalidOrder] {
            assert!(is_refused(&another_attempt(&order(Some(false), other))), "{other}");
        }
        let mut absurd = order(Some(false), Reason::InsufficientFunds);
        absurd.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), "500".to_owned());
        assert!(matches!(another_attempt(&absurd), Change::Write(_, Awaited::Attempt(2))), "the operator would never get there");
        assert!(is_refused(&another_attempt(&order(Some(true), Reason::Paid))));
        assert!(is_refused(&another_attempt(&order(None, Reason::Processing))));
    }

    #[test]
    fn what_was_deleted_is_neither_charged_again_nor_told_again() {
        let mut refused = order(Some(false), Reason::InsufficientFunds);
        let conditions = &mut refused.status.as_mut().unwrap().conditions;
        let now = jiff::Timestamp::UNIX_EPOCH;
        conditions::set(conditions, ConditionType::Notified, Some(false), Reason::DeadLettered, String::new(), None, now);
        assert!(!is_refused(&another_attempt(&refused)) && !is_refused(&another_message(&refused)));
        for asked in ["0", "2"] {
            refused.metadata.deletion_timestamp = Some(Time(now));
            refused.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), asked.to_owned());
            refused.annotations_mut().insert(RESEND_ANNOTATION.to_owned(), asked.to_owned());
            assert!(is_refused(&another_attempt(&refused)) && is_refused(&another_message(&refused)), "{asked}");
        }
    }

    #[test]
    fn only_a_message_that_was_given_up_is_sent_again() {
        let mut order = order(Some(true), Reason::Paid);
        assert!(is_refused(&another_message(&order)));
        for (reason, refused) in [(Reason::Delivering, true), (Reason::DeadLettered, false), (Reason::Undeliverable, false)] {
            let conditions = &mut order.status.as_mut().unwrap().conditions;
            let now = jiff::Timestamp::UNIX_EPOCH;
            conditions::set(conditions, ConditionType::Notified, Some(false), reason, String::new(), None, now);
            assert_eq!(is_refused(&another_message(&order)), refused, "{reason}");
        }
    }
}
