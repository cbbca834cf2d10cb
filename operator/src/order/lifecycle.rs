//! Decides whether an order needs a pass and whether it is finished. No other module decides this.

use jiff::Timestamp;
use kube::Resource;
use orders_crds::{Order, OrderStatus};

use super::{
    decide::{Step, decide},
    intent::Intent,
    status::is_generation_observed,
};
use crate::kube::{
    OrderGuard,
    finalizer::{has_finalizer, needs_finalizer},
};

/// The next step of an order.
pub fn next_step(order: &Order, now: Timestamp) -> Step {
    let empty = OrderStatus::default();
    let status = order.status.as_ref().unwrap_or(&empty);
    decide(status, &Intent::of(order.meta(), Some(&order.spec), status), now)
}

/// Whether a pass over the order has anything to do, now or later. An order that cannot be
/// parsed always needs a pass.
pub fn needs_pass(order: &OrderGuard, now: Timestamp) -> bool {
    let Ok(readable) = &order.0 else { return true };
    let empty = OrderStatus::default();
    let status = readable.status.as_ref().unwrap_or(&empty);
    next_step(readable, now) != Step::Done
        || has_finalizer(order) != needs_finalizer(order, status)
        || !is_generation_observed(status, readable.metadata.generation)
}

/// Whether the order is finished, so that it can be archived and removed: it is decided, its charge
/// is settled, its message was sent or its delivery stopped, no request is pending, its status
/// describes the current spec, and it is not being deleted.
pub fn is_finished(order: &Order, now: Timestamp) -> bool {
    order
        .status
        .as_ref()
        .is_some_and(|status| !status.is_charge_open() && is_generation_observed(status, order.metadata.generation))
        && next_step(order, now) == Step::Done
        && order.meta().deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use orders_crds::{ConditionType, OrderSpec, Reason, conditions, order::FINALIZER};

    use super::*;
    use crate::kube::order_guard::InvalidObject;

    fn order(succeeded: Option<bool>, notified: Option<Reason>) -> Order {
        let mut status = OrderStatus::default();
        let mut set = |kind, state, reason| {
            conditions::set(&mut status.conditions, kind, state, reason, String::new(), None, Timestamp::UNIX_EPOCH);
        };
        set(ConditionType::Succeeded, succeeded, if succeeded == Some(true) { Reason::Paid } else { Reason::InsufficientFunds });
        if let Some(reason) = notified {
            set(ConditionType::Notified, Some(reason == Reason::Sent), reason);
        }
        Order { status: Some(status), ..Order::new("order-1", OrderSpec::default()) }
    }

    #[test]
    fn an_order_is_finished_once_it_is_decided_and_its_message_is_final() {
        let is_finished = |order: &Order| is_finished(order, Timestamp::UNIX_EPOCH);
        assert!(is_finished(&order(Some(true), Some(Reason::Sent))));
        assert!(is_finished(&order(Some(false), Some(Reason::DeadLettered))));
        assert!(!is_finished(&order(Some(true), Some(Reason::Delivering))));
        assert!(!is_finished(&order(Some(true), None)));
        assert!(!is_finished(&order(None, None)));
        assert!(!is_finished(&Order::new("order-1", OrderSpec::default())));
        let mut cancelled = order(Some(true), Some(Reason::Sent));
        cancelled.spec.cancel_requested = Some(true);
        assert!(!is_finished(&cancelled), "its charge is to be refunded");
    }

    #[test]
    fn a_change_of_the_spec_needs_a_pass_before_the_order_is_archived() {
        let now = Timestamp::UNIX_EPOCH;
        let mut order = order(Some(true), Some(Reason::Sent));
        assert!(!needs_pass(&OrderGuard(Ok(order.clone())), now) && is_finished(&order, now));
        order.metadata.generation = Some(2);
        assert!(needs_pass(&OrderGuard(Ok(order.clone())), now) && !is_finished(&order, now));
        order.status.as_mut().unwrap().observed_generation = Some(2);
        assert!(!needs_pass(&OrderGuard(Ok(order.clone())), now) && is_finished(&order, now));
    }

    #[test]
    fn an_order_needs_a_pass_while_a_step_is_left_or_its_finalizer_is_to_change() {
        let needs_pass = |order: &Order| needs_pass(&OrderGuard(Ok(order.clone())), Timestamp::UNIX_EPOCH);
        let mut finished = order(Some(true), Some(Reason::Sent));
        assert!(!needs_pass(&finished));
        assert!(needs_pass(&order(Some(true), None)) && needs_pass(&Order::new("order-1", OrderSpec::default())));
        finished.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        assert!(needs_pass(&finished), "its finalizer is to be removed");
        let unreadable = OrderGuard(Err(InvalidObject { metadata: finished.metadata }));
        assert!(super::needs_pass(&unreadable, Timestamp::UNIX_EPOCH));
    }
}
