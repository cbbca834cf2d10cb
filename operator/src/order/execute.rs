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
                let answer = billing.charge(purchase).await;
                builder.paid(purchase, answer, Timestamp::now());
            }
            Step::Close => {
                let answer = billing.close(purchase).await;
                builder.closed(purchase, answer, intent.cancel, Timestamp::now());
            }
            Step::Refund => {
                let answer = billing.refund(purchase).await;
                builder.refunded(purchase, answer, Timestamp::now());
            }
            Step::Notify => {
                // A customer is notified only of a known outcome.
                let notice = Notice::of(&builder.status)?;
                let answer = notify.notify(purchase, &notice).await;
                builder.notified(purchase, answer, Timestamp::now());
            }
            Step::Retry => {
                builder.retried(intent.attempt, Timestamp::now());
                purchase.key = charge_key(uid, intent.attempt);
            }
            Step::Resend => builder.resent(intent.resends, Timestamp::now()),
            Step::Wait(until) => return Some(until),
            Step::Done => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use orders_crds::{ConditionType, OrderSpec, OrderStatus, Outcome, Reason, Refusal, conditions};

    use super::{
        super::script::{Script, charged, refused},
        *,
    };
    use crate::ports::{Delivery, NoAnswer};

    /// Returns the calls in order, the time of the next step, and the final status.
    async fn executed(status: OrderStatus, intent: Intent, script: Script) -> (Vec<String>, Option<Timestamp>, OrderStatus) {
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        let mut purchase = Purchase::read("uid", status.attempt(), &spec).unwrap();
        let mut builder = StatusBuilder::new(status, Some(1));
        let again = execute("uid", &mut purchase, &intent, &mut builder, &script, &script).await;
        (script.asked.into_inner().unwrap(), again, builder.status)
    }

    #[tokio::test]
    async fn an_order_is_charged_and_its_customer_told_in_one_pass() {
        let script = Script::new([charged()], [Ok(Delivery::Sent)]);
        let (asked, again, status) = executed(OrderStatus::default(), Intent::default(), script).await;
        assert_eq!(asked, ["charge uid", "notify Paid uid"]);
        assert_eq!((again, status.outcome(), status.is_notified()), (None, Outcome::Paid, true));
    }

    #[tokio::test]
    async fn what_is_not_answered_is_left_until_its_pause_is_over() {
        let script = Script::new([Err(NoAnswer("timeout".into()))], []);
        let (asked, again, status) = executed(OrderStatus::default(), Intent::default(), script).await;
        assert_eq!(asked, ["charge uid"]);
        assert!(again.is_some());
        assert_eq!(again, status.retry.map(|retry| retry.next_attempt_time.0));

        let script = Script::new([charged()], [Ok(Delivery::Underway { last_error: None })]);
        let (asked, again, status) = executed(OrderStatus::default(), Intent::default(), script).await;
        assert_eq!(asked, ["charge uid", "notify Paid uid"]);
        assert!(again.is_some() && status.outcome() == Outcome::Paid);
    }

    #[tokio::test]
    async fn a_cancelled_order_is_closed_or_given_back_and_told() {
        let cancel = Intent { cancel: true, ..Intent::default() };
        let script = Script::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
        let (asked, _, status) = executed(OrderStatus::default(), cancel, script).await;
        assert_eq!(asked, ["close uid", "notify Refused(Cancelled) uid"]);
        assert_eq!(status.outcome(), Outcome::Refused(Refusal::Cancelled));

        let script = Script::new([charged()], [Ok(Delivery::Sent)]);
        let (asked, again, status) = executed(OrderStatus::default(), cancel, script).await;
        assert_eq!(asked, ["close uid", "refund uid", "notify Refused(Refunded) uid"]);
        assert_eq!((again, status.outcome()), (None, Outcome::Refused(Refusal::Refunded)));
    }

    #[tokio::test]
    async fn too_late_is_not_cancelled() {
        let late = Intent { deadline: Some(Timestamp::UNIX_EPOCH), ..Intent::default() };
        let script = Script::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
        let (asked, _, status) = executed(OrderStatus::default(), late, script).await;
        assert_eq!(asked, ["close uid", "notify Refused(DeadlineExceeded) uid"]);
        assert_eq!(status.outcome(), Outcome::Refused(Refusal::DeadlineExceeded));
    }

    #[tokio::test]
    async fn another_attempt_is_charged_under_a_key_of_its_own() {
        let script = Script::new([refused(Refusal::InsufficientFunds), charged()], [Ok(Delivery::Sent)]);
        let intent = Intent { attempt: 2, ..Intent::default() };
        let (asked, again, status) = executed(OrderStatus::default(), intent, script).await;
        assert_eq!(asked, ["charge uid", "charge uid.2", "notify Paid uid.2"]);
        assert_eq!((again, status.attempt()), (None, 2));
    }

    #[tokio::test]
    async fn a_message_that_was_given_up_is_sent_again_as_asked() {
        let mut status = OrderStatus::default();
        let mut set = |kind, is, reason| {
            conditions::set(&mut status.conditions, kind, is, reason, String::new(), None, Timestamp::UNIX_EPOCH);
        };
        set(ConditionType::Succeeded, Some(true), Reason::Paid);
        set(ConditionType::Notified, Some(false), Reason::DeadLettered);
        let script = Script::new([], [Ok(Delivery::Sent)]);
        let (asked, again, status) = executed(status, Intent { resends: 1, ..Intent::default() }, script).await;
        assert_eq!(asked, ["notify Paid uid"]);
        assert_eq!((again, status.resends, status.is_notified()), (None, Some(1), true));
    }
}
