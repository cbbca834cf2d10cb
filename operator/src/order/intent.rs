//! The requests of users about an order, in addition to its payment. They are read from the spec,
//! the annotations and the deletion of the order.

use jiff::{SignedDuration, Timestamp, ToSpan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orders_crds::{
    OrderSpec, OrderStatus, Outcome,
    order::{ATTEMPT_ANNOTATION, RESEND_ANNOTATION, parse_annotation},
};

/// The requests of users about an order, in addition to its payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Whether to cancel the order: not to charge it, or to refund its charge.
    pub cancel: bool,
    /// The time after which the charge must not begin.
    pub deadline: Option<Timestamp>,
    /// The number of the attempt to charge that is requested if the order was refused, counted from
    /// 1; 0 if no attempt is requested.
    pub attempt: i32,
    /// Whether the archive must be asked for the name before the charge. The HTTP API asks for the
    /// names that it makes, so only other orders need it, and those whose charge did not succeed at
    /// once: meanwhile an earlier order of the same name may have been settled.
    pub check_name: bool,
    /// How many resends of the message were requested so far. The message is resent if its delivery
    /// was stopped.
    pub resends: i32,
}

impl Intent {
    /// Reads the intent of an order. Deleting an order whose charge is unknown or whose refund is
    /// pending cancels it. Deleting any other decided order does not. An order that is being deleted is
    /// not charged again, and its message is not sent again.
    pub fn of(metadata: &ObjectMeta, spec: Option<&OrderSpec>, status: &OrderStatus) -> Self {
        let is_cancel_requested = spec.and_then(|spec| spec.cancel_requested).unwrap_or_default();
        let is_deleted = metadata.deletion_timestamp.is_some();
        let number = |annotation| if is_deleted { 0 } else { parse_annotation(metadata, annotation) };
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let deadline = created.zip(spec.and_then(|spec| spec.deadline_seconds));
        Intent {
            cancel: is_cancel_requested || (is_deleted && status.is_charge_open()),
            // A deadline that is too far away for a timestamp is no deadline.
            deadline: deadline.and_then(|(created, seconds)| created.checked_add(seconds.seconds()).ok()),
            attempt: number(ATTEMPT_ANNOTATION),
            check_name: status.outcome() == Outcome::Undecided
                && !is_deleted
                && spec.is_some_and(|spec| spec.id.is_none() || !status.is_pending()),
            resends: number(RESEND_ANNOTATION),
        }
    }

    /// The intent with its deadline by this machine's clock, which is `ahead` of the API server's. The
    /// deadline counts from the creation of the order, which the API server stamps.
    pub fn with_clock_ahead(self, ahead: SignedDuration) -> Self {
        Intent { deadline: self.deadline.and_then(|deadline| deadline.checked_add(ahead).ok()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use orders_crds::{ConditionType, Reason, conditions};

    use super::*;

    fn status(succeeded: Option<bool>, reason: Reason) -> OrderStatus {
        let mut status = OrderStatus::default();
        let kind = ConditionType::Succeeded;
        conditions::set(&mut status.conditions, kind, succeeded, reason, String::new(), None, Timestamp::UNIX_EPOCH);
        status
    }

    #[test]
    fn deletion_cancels_only_an_order_whose_charge_is_open() {
        let deleted = ObjectMeta { deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)), ..ObjectMeta::default() };
        let cancels = |status: &OrderStatus| Intent::of(&deleted, None, status).cancel;
        assert!(cancels(&OrderStatus::default()));
        assert!(cancels(&status(None, Reason::Processing)));
        assert!(cancels(&status(Some(true), Reason::RefundPending)), "a pending refund is finished");
        assert!(!cancels(&status(Some(true), Reason::Paid)));
        assert!(!cancels(&status(Some(false), Reason::InsufficientFunds)));
    }

    #[test]
    fn a_name_is_checked_before_the_charge_unless_the_api_has_just_made_it() {
        let checks = |id: Option<i64>, status: &OrderStatus| {
            let spec = OrderSpec { id, ..OrderSpec::default() };
            Intent::of(&ObjectMeta::default(), Some(&spec), status).check_name
        };
        let (new, unknown, paid) = (OrderStatus::default(), status(None, Reason::Processing), status(Some(true), Reason::Paid));
        assert_eq!([checks(None, &new), checks(None, &unknown), checks(None, &paid)], [true, true, false]);
        assert_eq!([checks(Some(1), &new), checks(Some(1), &unknown), checks(Some(1), &paid)], [false, true, false]);
    }

    #[test]
    fn a_deadline_is_moved_by_the_difference_of_the_clocks() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let intent = |deadline| Intent { deadline, ..Intent::default() };
        for ahead in [60, -60, 0] {
            let moved = intent(Some(at(1_000))).with_clock_ahead(SignedDuration::from_secs(ahead));
            assert_eq!(moved, intent(Some(at(1_000 + ahead))));
        }
        assert_eq!(intent(None).with_clock_ahead(SignedDuration::from_secs(60)), intent(None));
    }

    fn with_annotation(annotation: &str, text: &str) -> ObjectMeta {
        ObjectMeta { annotations: Some([(annotation.to_owned(), text.to_owned())].into()), ..ObjectMeta::default() }
    }

    #[test]
    fn an_annotation_with_an_invalid_number_requests_nothing() {
        for text in ["", "-1", "101", "2.0", "two", "99999999999"] {
            let metadata = with_annotation(ATTEMPT_ANNOTATION, text);
            assert_eq!(Intent::of(&metadata, None, &OrderStatus::default()).attempt, 0, "{text}");
        }
    }

    #[test]
    fn an_order_that_is_being_deleted_is_neither_charged_again_nor_is_its_message_resent() {
        let refused = status(Some(false), Reason::InsufficientFunds);
        for annotation in [ATTEMPT_ANNOTATION, RESEND_ANNOTATION] {
            let mut metadata = with_annotation(annotation, "2");
            let intent = Intent::of(&metadata, None, &refused);
            assert_eq!(intent.attempt + intent.resends, 2);
            metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            assert_eq!(Intent::of(&metadata, None, &refused), Intent::default(), "{annotation}");
        }
    }
}
