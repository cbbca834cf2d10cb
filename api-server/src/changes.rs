//! Changes of a placed order: cancel it, charge it again, send its message again. Each change is
//! written into the resource, where the operator reads it. A repeated request for a change has no
//! second effect.

use axum::http::StatusCode;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
    core::Status,
};
use orders_crds::{
    Order, OrderStatus, Outcome, Refusal,
    order::{ATTEMPT_ANNOTATION, FINALIZER, MAX_ATTEMPTS, RESEND_ANNOTATION, parse_annotation},
};
use orders_service::Problem;
use serde_json::{Value, json};

use crate::{
    kube_call::call,
    order_cache::{OrderState, Subscription},
    order_id::OrderRef,
    orders::{Orders, no_such_order},
};

/// The maximum number of attempts to write a change while others change the same order.
const MAX_WRITES: u8 = 5;

/// The result of a request for a change.
pub enum ChangeResult {
    /// The change is complete.
    Complete(Box<Order>),
    /// The change is in progress.
    InProgress {
        /// The subscription to the states of the order.
        subscription: Box<Subscription>,
        /// The state in which the change is complete.
        target: TargetState,
    },
}

/// The state in which a change is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// The order is decided and not paid, or no longer paid.
    Unpaid,
    /// This attempt to charge is decided.
    AttemptDecided(i32),
    /// The message was sent again this many times.
    MessageResent(i32),
}

impl TargetState {
    /// Whether an order in this state has reached the target.
    pub fn is_reached(self, state: OrderState) -> bool {
        match (self, state) {
            (TargetState::Unpaid, OrderState::Decided { outcome, .. }) => outcome != Outcome::Paid,
            (TargetState::AttemptDecided(number), OrderState::Decided { attempt, .. }) => attempt >= number,
            (TargetState::MessageResent(number), OrderState::Decided { resends, is_message_done, .. }) => {
                resends >= number && is_message_done
            }
            (_, OrderState::Undecided | OrderState::Deleted) => false,
        }
    }
}

/// The next step of a change, derived from the current order.
#[derive(Debug, PartialEq)]
enum Change {
    /// The order already has the requested state.
    AlreadyComplete,
    /// This patch must be written; then the change is complete in this state.
    Write(Value, TargetState),
    /// The change is already written; it is complete in this state.
    Wait(TargetState),
    /// The order's state forbids the change, for this reason.
    Refuse(&'static str),
}

impl Orders {
    /// Cancels an order: it is never charged, or its charge is refunded.
    ///
    /// # Errors
    /// 404; 409 if the order was refused for another reason; 503 if the Kubernetes API does not
    /// respond.
    pub async fn cancel(&self, order: &OrderRef) -> Result<ChangeResult, Problem> {
        self.change(order, decide_cancel).await
    }

    /// Requests another attempt to charge a refused order.
    ///
    /// # Errors
    /// 404; 409 if the order was not refused for insufficient funds or a missing account, or was
    /// deleted; 403 if Kubernetes refuses the change; 503; 504.
    pub async fn retry(&self, order: &OrderRef) -> Result<ChangeResult, Problem> {
        self.change(order, decide_retry).await
    }

    /// Requests that a message whose delivery was given up be sent again.
    ///
    /// # Errors
    /// 404; 409 if the delivery was not given up, or the order was deleted; 403, 503 or 504
    /// as for [`Self::cancel`].
    pub async fn resend(&self, order: &OrderRef) -> Result<ChangeResult, Problem> {
        self.change(order, decide_resend).await
    }

    /// Writes the change that `decide` returns, if the order is still at the version that `decide`
    /// was given.
    async fn change(&self, reference: &OrderRef, decide: impl Fn(&Order) -> Change) -> Result<ChangeResult, Problem> {
        let name = reference.resource_name();
        let subscription = self.cache.subscribe(name);
        for _ in 0..MAX_WRITES {
            let Some(order) = self.get_live(reference).await? else { return self.change_archived(reference, decide).await };
            let (mut patch, target) = match decide(&order) {
                Change::AlreadyComplete => return Ok(ChangeResult::Complete(Box::new(order))),
                Change::Refuse(reason) => return Err(reference.add_to(Problem::new(StatusCode::CONFLICT, reason))),
                Change::Wait(target) => return Ok(ChangeResult::InProgress { subscription: Box::new(subscription), target }),
                Change::Write(patch, target) => (patch, target),
            };
            patch["metadata"]["resourceVersion"] = json!(order.resource_version());
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            match call(self.api.patch(name, &params, &patch)).await {
                Ok(_) => return Ok(ChangeResult::InProgress { subscription: Box::new(subscription), target }),
                Err(error) if error.status().is_some_and(Status::is_conflict) => {}
                Err(error) if error.status().is_some_and(Status::is_not_found) => return Err(no_such_order(reference)),
                Err(error) => return Err(reference.add_to(error.write_problem("change", "Repeat the request"))),
            }
        }
        Err(reference.add_to(Problem::unavailable("other clients keep changing the order; nothing was done. Try again")))
    }

    /// Answers for an archived order: it may already have the requested state, but it cannot be
    /// changed.
    async fn change_archived(&self, reference: &OrderRef, decide: impl Fn(&Order) -> Change) -> Result<ChangeResult, Problem> {
        let archived = self.get_archived(reference).await?;
        let order = archived.ok_or_else(|| no_such_order(reference))?;
        let reason = match decide(&order) {
            Change::AlreadyComplete => return Ok(ChangeResult::Complete(Box::new(order))),
            Change::Refuse(reason) => reason,
            Change::Write(..) | Change::Wait(_) => "the order is archived: it cannot be changed any more",
        };
        Err(reference.add_to(Problem::new(StatusCode::CONFLICT, reason)))
    }
}

/// The reason why an order that a newer version decided cannot be changed.
const UNKNOWN_OUTCOME: &str = "the order was decided for a reason that this version does not know: try again after the upgrade";

fn decide_cancel(order: &Order) -> Change {
    let is_requested = order.spec.cancel_requested == Some(true);
    match order.outcome() {
        Outcome::Refused(Refusal::Cancelled | Refusal::Refunded) => Change::AlreadyComplete,
        Outcome::Refused(
            Refusal::InsufficientFunds
            | Refusal::AccountNotFound
            | Refusal::DeadlineExceeded
            | Refusal::AlreadyExists
            | Refusal::InvalidOrder,
        ) => Change::Refuse("the order was refused: nothing was charged, and there is nothing to cancel"),
        Outcome::Unknown => Change::Refuse(UNKNOWN_OUTCOME),
        Outcome::Undecided | Outcome::Paid if is_requested => Change::Wait(TargetState::Unpaid),
        Outcome::Undecided | Outcome::Paid => Change::Write(cancellation(order), TargetState::Unpaid),
    }
}

/// The patch that requests the cancellation. It adds the operator's finalizer, so that the order
/// cannot disappear before the operator has seen the request. Kubernetes allows no new finalizer on an
/// order that is being deleted.
fn cancellation(order: &Order) -> Value {
    let mut patch = json!({"spec": {"cancelRequested": true}});
    if order.metadata.deletion_timestamp.is_none() {
        let mut finalizers = order.finalizers().to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        patch["metadata"] = json!({ "finalizers": finalizers });
    }
    patch
}

fn decide_retry(order: &Order) -> Change {
    let status = order.status.clone().unwrap_or_default();
    let requested = parse_annotation(&order.metadata, ATTEMPT_ANNOTATION);
    match order.outcome() {
        Outcome::Undecided if status.attempt() > 1 || requested > status.attempt() => {
            Change::Wait(TargetState::AttemptDecided(requested.max(status.attempt())))
        }
        Outcome::Undecided => Change::Refuse("the order is not decided yet: the charge is still in progress"),
        Outcome::Paid => Change::Refuse("the order is paid: it is not charged again"),
        Outcome::Unknown => Change::Refuse(UNKNOWN_OUTCOME),
        Outcome::Refused(_) if is_deleted(order) => Change::Refuse("the order was deleted: place a new one"),
        Outcome::Refused(refusal) if refusal.is_retryable() && order.spec.cancel_requested != Some(true) => {
            let next = status.attempt() + 1;
            match requested {
                _ if next > MAX_ATTEMPTS => Change::Refuse("the order reached the maximum of 100 attempts: place a new one"),
                requested if requested >= next => Change::Wait(TargetState::AttemptDecided(requested)),
                _ => Change::Write(annotation(ATTEMPT_ANNOTATION, next), TargetState::AttemptDecided(next)),
            }
        }
        Outcome::Refused(_) => Change::Refuse("the order was cancelled, missed its deadline or is invalid: place a new one"),
    }
}

fn decide_resend(order: &Order) -> Change {
    let status: OrderStatus = order.status.clone().unwrap_or_default();
    let next = status.resends.unwrap_or(0) + 1;
    match parse_annotation(&order.metadata, RESEND_ANNOTATION) {
        _ if order.outcome() == Outcome::Undecided => {
            Change::Refuse("the order is not decided yet: there is no message about it")
        }
        _ if order.outcome() == Outcome::Unknown => Change::Refuse(UNKNOWN_OUTCOME),
        _ if order.outcome() == Outcome::Refused(Refusal::InvalidOrder) => {
            Change::Refuse("the order is invalid: there is no message about it")
        }
        _ if status.is_notified() => Change::Refuse("the mail server has accepted the message already"),
        _ if is_deleted(order) => Change::Refuse("the order was deleted: its message is not sent again"),
        _ if !status.is_undeliverable() => {
            Change::Refuse("the delivery of the message is still in progress: it was not given up")
        }
        _ if next > MAX_ATTEMPTS => Change::Refuse("the message reached the maximum of 100 resends"),
        requested if requested >= next => Change::Wait(TargetState::MessageResent(requested)),
        _ => Change::Write(annotation(RESEND_ANNOTATION, next), TargetState::MessageResent(next)),
    }
}

/// Whether the order was deleted. The operator neither charges a deleted order again nor requests
/// its message again.
fn is_deleted(order: &Order) -> bool {
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
    fn a_paid_or_undecided_order_can_be_cancelled_once() {
        for mut order in [order(None, Reason::Processing), order(Some(true), Reason::Paid)] {
            assert!(matches!(decide_cancel(&order), Change::Write(_, TargetState::Unpaid)));
            order.spec.cancel_requested = Some(true);
            assert_eq!(decide_cancel(&order), Change::Wait(TargetState::Unpaid));
        }
        assert_eq!(decide_cancel(&order(Some(false), Reason::Refunded)), Change::AlreadyComplete);
        assert!(is_refused(&decide_cancel(&order(Some(false), Reason::InsufficientFunds))));
    }

    #[test]
    fn a_cancellation_adds_the_finalizer_unless_the_order_is_being_deleted() {
        let mut order = order(Some(true), Reason::Paid);
        assert_eq!(cancellation(&order)["metadata"], json!({"finalizers": [FINALIZER]}));
        order.metadata.finalizers = Some(vec!["a/b".into(), FINALIZER.into()]);
        assert_eq!(cancellation(&order)["metadata"], json!({"finalizers": ["a/b", FINALIZER]}));
        order.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(cancellation(&order), json!({"spec": {"cancelRequested": true}}));
    }

    #[test]
    fn only_an_order_refused_for_insufficient_funds_is_charged_again() {
        let mut refused = order(Some(false), Reason::InsufficientFunds);
        assert!(matches!(decide_retry(&refused), Change::Write(_, TargetState::AttemptDecided(2))));
        refused.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), "2".to_owned());
        assert_eq!(decide_retry(&refused), Change::Wait(TargetState::AttemptDecided(2)), "requested already");
        refused.spec.cancel_requested = Some(true);
        assert!(is_refused(&decide_retry(&refused)));
        for other in [Reason::Cancelled, Reason::Refunded, Reason::DeadlineExceeded, Reason::InvalidOrder] {
            assert!(is_refused(&decide_retry(&order(Some(false), other))), "{other}");
        }
        let mut unreachable = order(Some(false), Reason::InsufficientFunds);
        unreachable.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), "500".to_owned());
        assert!(
            matches!(decide_retry(&unreachable), Change::Write(_, TargetState::AttemptDecided(2))),
            "the operator would never get there"
        );
        assert!(is_refused(&decide_retry(&order(Some(true), Reason::Paid))));
        assert!(is_refused(&decide_retry(&order(None, Reason::Processing))));
    }

    #[test]
    fn a_deleted_order_is_neither_charged_again_nor_notified_again() {
        let mut refused = order(Some(false), Reason::InsufficientFunds);
        let conditions = &mut refused.status.as_mut().unwrap().conditions;
        let now = jiff::Timestamp::UNIX_EPOCH;
        conditions::set(conditions, ConditionType::Notified, Some(false), Reason::DeadLettered, String::new(), None, now);
        assert!(!is_refused(&decide_retry(&refused)) && !is_refused(&decide_resend(&refused)));
        for requested in ["0", "2"] {
            refused.metadata.deletion_timestamp = Some(Time(now));
            refused.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), requested.to_owned());
            refused.annotations_mut().insert(RESEND_ANNOTATION.to_owned(), requested.to_owned());
            assert!(is_refused(&decide_retry(&refused)) && is_refused(&decide_resend(&refused)), "{requested}");
        }
    }

    #[test]
    fn only_a_message_that_was_given_up_is_sent_again() {
        let mut order = order(Some(true), Reason::Paid);
        assert!(is_refused(&decide_resend(&order)));
        for (reason, refused) in [(Reason::Delivering, true), (Reason::DeadLettered, false), (Reason::Undeliverable, false)] {
            let conditions = &mut order.status.as_mut().unwrap().conditions;
            let now = jiff::Timestamp::UNIX_EPOCH;
            conditions::set(conditions, ConditionType::Notified, Some(false), reason, String::new(), None, now);
            assert_eq!(is_refused(&decide_resend(&order)), refused, "{reason}");
        }
    }
}
