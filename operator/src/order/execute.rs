//! Executes the decided steps of an order, until no step is due.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orders_crds::{Order, OrderSpec, Outcome, Refusal, order::charge_key};

use super::{
    decide::{Step, decide},
    intent::Intent,
    status::StatusBuilder,
};
use crate::ports::{Billing, NameLookup, Names, Notice, Notify, Payment, Purchase, UnknownResult};

/// The services that execute the steps.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// Charges, closes and refunds.
    pub billing: &'a dyn Billing,
    /// Notifies the customer.
    pub notify: &'a dyn Notify,
    /// Knows the names of archived orders.
    pub names: &'a dyn Names,
}

/// Executes every step that is due, and records its result in `builder`. Returns the time when the
/// next step is due, or `None` if nothing is left to do.
pub async fn execute(
    metadata: &ObjectMeta,
    spec: &OrderSpec,
    purchase: &mut Purchase,
    mut intent: Intent,
    builder: &mut StatusBuilder,
    services: Services<'_>,
) -> Option<Timestamp> {
    let mut is_name_charged = false;
    // Each step ends in an outcome or in a later attempt, so this loop ends.
    loop {
        match decide(&builder.status, &intent, Timestamp::now()) {
            Step::LookUp => match services.names.look_up(metadata).await {
                Ok(NameLookup::Free) if is_name_charged => builder.refuse_name(purchase, Timestamp::now()),
                Ok(NameLookup::Free) => intent.check_name = false,
                Ok(NameLookup::Taken(archived)) => {
                    take_over(&archived, spec, purchase, builder, services.billing).await;
                    intent.check_name = builder.status.outcome() == Outcome::Undecided;
                }
                Err(error) => builder.record_lookup_failure(&error, Timestamp::now()),
            },
            Step::Charge => match services.billing.charge(purchase).await {
                // An earlier order of this name was charged. The archive has it by now, unless there is
                // no archive or its data were lost.
                Ok(Payment::Refused { refusal: Refusal::AlreadyExists, .. }) if !is_name_charged => {
                    (is_name_charged, intent.check_name) = (true, true);
                }
                result => builder.record_charge(purchase, result, Timestamp::now()),
            },
            Step::Close => {
                let result = services.billing.close(purchase).await;
                builder.record_close(purchase, result, intent.cancel, Timestamp::now());
            }
            Step::Refund => {
                let result = services.billing.refund(purchase).await;
                builder.record_refund(purchase, result, Timestamp::now());
            }
            Step::Notify => {
                // A customer is notified only of a known outcome.
                let notice = Notice::of(&builder.status)?;
                let result = services.notify.notify(purchase, &notice).await;
                builder.record_delivery(purchase, result, Timestamp::now());
            }
            Step::Retry => {
                builder.begin_attempt(intent.attempt, Timestamp::now());
                let uid = builder.status.adopted_from.as_deref().or(metadata.uid.as_deref()).unwrap_or_default();
                purchase.key = charge_key(uid, intent.attempt);
            }
            Step::Resend => builder.begin_resend(intent.resends, Timestamp::now()),
            Step::Wait(until) => return Some(until),
            Step::Done => return None,
        }
    }
}

/// Takes over the outcome of the archived order that has the name of this order, or refuses this order
/// if it has another spec. The charge of this order is closed before: an earlier pass, which ended before
/// it could write a status, may have requested it. If it was made, it counts.
async fn take_over(
    archived: &Order,
    spec: &OrderSpec,
    purchase: &mut Purchase,
    builder: &mut StatusBuilder,
    billing: &dyn Billing,
) {
    if [Outcome::Undecided, Outcome::Unknown].contains(&archived.outcome()) {
        let error = "the archive has an outcome that this version of the operator does not know".to_owned();
        return builder.record_lookup_failure(&UnknownResult(error), Timestamp::now());
    }
    match billing.close(purchase).await {
        Ok(Payment::Refused { .. }) if spec.is_same_order(&archived.spec) => {
            builder.adopt(archived, Timestamp::now());
            purchase.key = charge_key(archived.key_uid(), builder.status.attempt());
        }
        Ok(Payment::Refused { .. }) => builder.refuse_name(purchase, Timestamp::now()),
        result @ (Ok(Payment::Charged { .. }) | Err(_)) => builder.record_charge(purchase, result, Timestamp::now()),
    }
}

#[cfg(test)]
mod tests {
    use orders_crds::{ConditionType, Money, Order, OrderStatus, Reason, Refusal, conditions};

    use super::{
        super::test_doubles::{ScriptedServices, charged, refused},
        *,
    };
    use crate::ports::Delivery;

    async fn run(
        status: OrderStatus,
        intent: Intent,
        services: ScriptedServices,
    ) -> (Vec<String>, Option<Timestamp>, OrderStatus) {
        run_as("uid", status, intent, services).await
    }

    /// Returns the calls in order, the time of the next step, and the final status. The keys of the
    /// order begin with `uid`.
    async fn run_as(
        uid: &str,
        status: OrderStatus,
        intent: Intent,
        services: ScriptedServices,
    ) -> (Vec<String>, Option<Timestamp>, OrderStatus) {
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        let mut purchase = Purchase::read(uid, status.attempt(), &spec).unwrap();
        let mut builder = StatusBuilder::new(status, Some(1));
        let metadata = ObjectMeta { uid: Some("uid".to_owned()), ..ObjectMeta::default() };
        let all = Services { billing: &services, notify: &services, names: &services };
        let next = execute(&metadata, &spec, &mut purchase, intent, &mut builder, all).await;
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

    /// An archived order with the same name, this amount and this outcome.
    fn archived(amount: &str, succeeded: bool, reason: Reason) -> Order {
        let mut status = OrderStatus::default();
        let mut set = |kind, state, reason| {
            conditions::set(&mut status.conditions, kind, Some(state), reason, "as archived".into(), None, Timestamp::UNIX_EPOCH);
        };
        set(ConditionType::Paid, succeeded, reason);
        set(ConditionType::Succeeded, succeeded, reason);
        set(ConditionType::Notified, true, Reason::Sent);
        status.balance = Some(Money::from_minor(9_000));
        let spec = OrderSpec { login: "a".into(), email: "a@b.cd".into(), amount: amount.into(), ..OrderSpec::default() };
        let metadata = ObjectMeta { uid: Some("first".into()), ..ObjectMeta::default() };
        Order { metadata, spec, status: Some(status) }
    }

    fn checked() -> Intent {
        Intent { check_name: true, ..Intent::default() }
    }

    fn taken(order: Order) -> Result<NameLookup, UnknownResult> {
        Ok(NameLookup::Taken(Box::new(order)))
    }

    #[tokio::test]
    async fn an_order_with_a_free_name_is_looked_up_before_it_is_charged() {
        let services = ScriptedServices::new([charged()], [Ok(Delivery::Sent)]).with_names([Ok(NameLookup::Free)]);
        let (calls, _, status) = run(OrderStatus::default(), checked(), services).await;
        assert_eq!(calls, ["look up", "charge uid", "notify Paid uid"]);
        assert_eq!((status.outcome(), status.adopted_from), (Outcome::Paid, None));
    }

    #[tokio::test]
    async fn an_order_with_the_name_and_the_spec_of_an_archived_one_takes_over_its_outcome() {
        let not_made = refused(Refusal::Cancelled);
        let services = ScriptedServices::new([not_made.clone()], []).with_names([taken(archived("10.00", true, Reason::Paid))]);
        let (calls, next, status) = run(OrderStatus::default(), checked(), services).await;
        assert_eq!(calls, ["look up", "close uid"], "nothing is charged, and nobody is notified");
        assert_eq!(next, None);
        assert_eq!((status.outcome(), status.is_notified()), (Outcome::Paid, true));
        assert_eq!((status.adopted_from.as_deref(), status.balance), (Some("first"), Some(Money::from_minor(9_000))));
        assert_eq!(status.history[0].action, "Adopt");
        let decided = conditions::find(&status.conditions, ConditionType::Decided).unwrap();
        assert!(decided.status == "True" && decided.message.ends_with("taken over. as archived"), "{decided:?}");

        // A cancellation refunds the charge of the first order, and another attempt has its keys.
        let services = ScriptedServices::new([], [Ok(Delivery::Sent)]);
        let cancel = Intent { cancel: true, ..Intent::default() };
        let mut purchase_of_first = status.clone();
        purchase_of_first.retry = None;
        let (calls, ..) = run_as("first", purchase_of_first, cancel, services).await;
        assert_eq!(calls, ["refund first", "notify Refused(Refunded) first"]);
        let services = ScriptedServices::new([not_made, charged()], [Ok(Delivery::Sent)]).with_names([taken(archived(
            "10.00",
            false,
            Reason::InsufficientFunds,
        ))]);
        let (calls, _, status) = run(OrderStatus::default(), Intent { attempt: 2, ..checked() }, services).await;
        assert_eq!(calls, ["look up", "close uid", "charge first.2", "notify Paid first.2"]);
        assert_eq!((status.adopted_from.as_deref(), status.attempt()), (Some("first"), 2));
    }

    #[tokio::test]
    async fn what_was_charged_and_refunded_in_which_attempt_is_taken_over_too() {
        let mut first = archived("10.00", false, Reason::Refunded);
        let charge = orders_crds::Charge { key: "first.3".into(), amount: Money::from_minor(1_000) };
        let archived = first.status.as_mut().unwrap();
        (archived.charge, archived.refunded) = (Some(charge.clone()), Some(Money::from_minor(1_000)));
        (archived.attempt, archived.resends) = (Some(3), Some(2));
        let services = ScriptedServices::new([refused(Refusal::Cancelled)], []).with_names([taken(first)]);
        let (_, _, status) = run(OrderStatus::default(), checked(), services).await;
        assert_eq!((status.charge, status.refunded), (Some(charge), Some(Money::from_minor(1_000))));
        assert_eq!((status.attempt, status.resends), (Some(3), Some(2)));
    }

    #[tokio::test]
    async fn an_order_with_the_name_of_an_archived_one_and_another_spec_is_refused() {
        let services = ScriptedServices::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
        let services = services.with_names([taken(archived("11", true, Reason::Paid))]);
        let (calls, next, status) = run(OrderStatus::default(), checked(), services).await;
        assert_eq!(calls, ["look up", "close uid", "notify Refused(AlreadyExists) uid"]);
        assert_eq!((next, status.outcome()), (None, Outcome::Refused(Refusal::AlreadyExists)));
    }

    #[tokio::test]
    async fn an_order_that_an_earlier_pass_charged_does_not_take_over_another_outcome() {
        for amount in ["10", "11"] {
            let services = ScriptedServices::new([charged()], [Ok(Delivery::Sent)]);
            let services = services.with_names([taken(archived(amount, false, Reason::InsufficientFunds))]);
            let (calls, next, status) = run(OrderStatus::default(), checked(), services).await;
            assert_eq!(calls, ["look up", "close uid", "notify Paid uid"]);
            assert_eq!((next, status.outcome(), status.adopted_from), (None, Outcome::Paid, None));
        }
        // Nothing is taken over before billing has replied.
        let services = ScriptedServices::new([Err(UnknownResult("timeout".into()))], []);
        let services = services.with_names([taken(archived("10", true, Reason::Paid))]);
        let (calls, next, status) = run(OrderStatus::default(), checked(), services).await;
        assert_eq!((calls, status.outcome()), (vec!["look up".to_owned(), "close uid".to_owned()], Outcome::Undecided));
        assert!(next.is_some() && status.adopted_from.is_none());
    }

    #[tokio::test]
    async fn an_order_whose_name_was_charged_before_is_looked_up_again_and_never_charged() {
        let used = || refused(Refusal::AlreadyExists);
        let lookups = || [Ok(NameLookup::Free), taken(archived("10", true, Reason::Paid))];
        let services = ScriptedServices::new([used(), used()], []).with_names(lookups());
        let (calls, next, status) = run(OrderStatus::default(), checked(), services).await;
        assert_eq!(calls, ["look up", "charge uid", "look up", "close uid"]);
        assert_eq!((next, status.outcome(), status.adopted_from.as_deref()), (None, Outcome::Paid, Some("first")));

        // Without an archive, or if its data were lost.
        let services = ScriptedServices::new([used()], [Ok(Delivery::Sent)]).with_names([Ok(NameLookup::Free)]);
        let (calls, next, status) = run(OrderStatus::default(), Intent::default(), services).await;
        assert_eq!(calls, ["charge uid", "look up", "notify Refused(AlreadyExists) uid"]);
        assert_eq!((next, status.outcome()), (None, Outcome::Refused(Refusal::AlreadyExists)));
    }

    #[tokio::test]
    async fn an_order_that_took_over_a_refusal_is_refused_if_its_next_attempt_finds_the_name_charged() {
        let used = || refused(Refusal::AlreadyExists);
        let services = ScriptedServices::new([used(), refused(Refusal::Cancelled), used()], [Ok(Delivery::Sent)]);
        let services = services.with_names([taken(archived("10", false, Reason::InsufficientFunds))]);
        let (calls, next, status) = run(OrderStatus::default(), Intent { attempt: 2, ..Intent::default() }, services).await;
        assert_eq!(
            calls,
            ["charge uid", "look up", "close uid", "charge first.2", "notify Refused(AlreadyExists) first.2"],
            "it is looked up only once"
        );
        assert_eq!((next, status.outcome()), (None, Outcome::Refused(Refusal::AlreadyExists)));
    }

    #[tokio::test]
    async fn an_order_waits_visibly_while_its_name_cannot_be_looked_up() {
        let newer = archived("10", false, Reason::Processing);
        for lookup in [Err(UnknownResult("timeout".into())), taken(newer)] {
            let services = ScriptedServices::new([], []).with_names([lookup]);
            let (calls, next, status) = run(OrderStatus::default(), checked(), services).await;
            assert_eq!((calls, status.outcome()), (vec!["look up".to_owned()], Outcome::Undecided));
            assert_eq!(next, status.retry.map(|retry| retry.next_attempt_time.0));
            let paid = conditions::find(&status.conditions, ConditionType::Paid).unwrap();
            assert_eq!((&*paid.status, &*paid.reason), ("Unknown", "ArchiveUnavailable"));
        }
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
