//! Executes the decided steps of an order, until no step is due.

use jiff::Timestamp;
use orders_crds::order::charge_key;

use super::{
    decide::{Step, decide},
    intent::Intent,
    status::StatusBuilder,
};
use crate::ports::{Billing, Notice, Notify, Purchase};

/// Executes every step that is due, and records its result in `builder`. Returns the time when the
/// next step is due, or `None` if nothing is left to do.
pub async fn execute(
    uid: &str,
    purchase: &mut Purchase,
    intent: &Intent,
    builder: &mut StatusBuilder,
    billing: &dyn Billing,
    notify: &dyn Notify,
) -> Option<Timestamp> {
    // Each step ends in an outcome or in a later attempt, so this loop ends.
    loop {
        match decide(&builder.status, intent, Timestamp::now()) {
            Step::Charge => {
                let result = billing.charge(purchase).await;
                builder.record_charge(purchase, result, Timestamp::now());
            }
            Step::Close => {
                let result = billing.close(purchase).await;
                builder.record_close(purchase, result, intent.cancel, Timestamp::now());
            }
            Step::Refund => {
                let result = billing.refund(purchase).await;
                builder.record_refund(purchase, result, Timestamp::now());
            }
            Step::Notify => {
                // A customer is notified only of a known outcome.
                let notice = Notice::of(&builder.status)?;
                let result = notify.notify(purchase, &notice).await;
                builder.record_delivery(purchase, result, Timestamp::now());
            }
            Step::Retry => {
                builder.begin_attempt(intent.attempt, Timestamp::now());
                purchase.key = charge_key(uid, intent.attempt);
            }
            Step::Resend => builder.begin_resend(intent.resends, Timestamp::now()),
            Step::Wait(until) => return Some(until),
            Step::Done => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use orders_crds::{ConditionType, OrderSpec, OrderStatus, Outcome, Reason, Refusal, conditions};

    use super::{
        super::test_doubles::{ScriptedServices, charged, refused},
        *,
    };
    use crate::ports::{Delivery, UnknownResult};

    /// Returns the calls in order, the time of the next step, and the final status.
    async fn run(
        status: OrderStatus,
        intent: Intent,
        services: ScriptedServices,
    ) -> (Vec<String>, Option<Timestamp>, OrderStatus) {
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        let mut purchase = Purchase::read("uid", status.attempt(), &spec).unwrap();
        let mut builder = StatusBuilder::new(status, Some(1));
        let next = execute("uid", &mut purchase, &intent, &mut builder, &services, &services).await;
        (services.calls.into_inner().unwrap(), next, builder.status)
    }

    #[tokio::test]
    async fn an_order_is_charged_and_its_customer_notified_in_one_pass() {
        let services = ScriptedServices::new([charged()], [Ok(Delivery::Sent)]);
        let (calls, next, status) = run(OrderStatus::default(), Intent::default(), services).await;
        assert_eq!(calls, ["charge uid", "notify Paid uid"]);
        assert_eq!((next, status.outcome(), status.is_notified()), (None, Outcome::Paid, true));
    }

    #[tokio::test]
    async fn a_step_without_a_reply_is_retried_after_its_backoff() {
        let services = ScriptedServices::new([Err(UnknownResult("timeout".into()))], []);
        let (calls, next, status) = run(OrderStatus::default(), Intent::default(), services).await;
        assert_eq!(calls, ["charge uid"]);
        assert!(next.is_some());
        assert_eq!(next, status.retry.map(|retry| retry.next_attempt_time.0));

        let services = ScriptedServices::new([charged()], [Ok(Delivery::Delivering { last_error: None })]);
        let (calls, next, status) = run(OrderStatus::default(), Intent::default(), services).await;
        assert_eq!(calls, ["charge uid", "notify Paid uid"]);
        assert!(next.is_some() && status.outcome() == Outcome::Paid);
    }

    #[tokio::test]
    async fn a_cancelled_order_is_closed_or_refunded_and_its_customer_notified() {
        let cancel = Intent { cancel: true, ..Intent::default() };
        let services = ScriptedServices::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
        let (calls, _, status) = run(OrderStatus::default(), cancel, services).await;
        assert_eq!(calls, ["close uid", "notify Refused(Cancelled) uid"]);
        assert_eq!(status.outcome(), Outcome::Refused(Refusal::Cancelled));

        let services = ScriptedServices::new([charged()], [Ok(Delivery::Sent)]);
        let (calls, next, status) = run(OrderStatus::default(), cancel, services).await;
        assert_eq!(calls, ["close uid", "refund uid", "notify Refused(Refunded) uid"]);
        assert_eq!((next, status.outcome()), (None, Outcome::Refused(Refusal::Refunded)));
    }

    #[tokio::test]
    async fn an_order_past_its_deadline_is_not_reported_as_cancelled() {
        let late = Intent { deadline: Some(Timestamp::UNIX_EPOCH), ..Intent::default() };
        let services = ScriptedServices::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
        let (calls, _, status) = run(OrderStatus::default(), late, services).await;
        assert_eq!(calls, ["close uid", "notify Refused(DeadlineExceeded) uid"]);
        assert_eq!(status.outcome(), Outcome::Refused(Refusal::DeadlineExceeded));
    }

    #[tokio::test]
    async fn another_attempt_is_charged_under_a_key_of_its_own() {
        let services = ScriptedServices::new([refused(Refusal::InsufficientFunds), charged()], [Ok(Delivery::Sent)]);
        let intent = Intent { attempt: 2, ..Intent::default() };
        let (calls, next, status) = run(OrderStatus::default(), intent, services).await;
        assert_eq!(calls, ["charge uid", "charge uid.2", "notify Paid uid.2"]);
        assert_eq!((next, status.attempt()), (None, 2));
    }

    #[tokio::test]
    async fn a_dead_lettered_message_is_resent_on_request() {
        let mut status = OrderStatus::default();
        let mut set = |kind, state, reason| {
            conditions::set(&mut status.conditions, kind, state, reason, String::new(), None, Timestamp::UNIX_EPOCH);
        };
        set(ConditionType::Succeeded, Some(true), Reason::Paid);
        set(ConditionType::Notified, Some(false), Reason::DeadLettered);
        let services = ScriptedServices::new([], [Ok(Delivery::Sent)]);
        let (calls, next, status) = run(status, Intent { resends: 1, ..Intent::default() }, services).await;
        assert_eq!(calls, ["notify Paid uid"]);
        assert_eq!((next, status.resends, status.is_notified()), (None, Some(1), true));
    }
}
