//! The serialized form of an order's outcome, for fields of type [`Outcome`] with
//! `#[serde(with = "outcome")]`.

use orders_crds::{Outcome, Refusal};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// An outcome in a request, a response or an event.
///
/// Billing sends the values of `ChargeOutcome`, which are final for a charge's key. The operator sends
/// all values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Outcome")]
pub enum WireOutcome {
    /// The account was charged.
    Charged,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// The charge was closed before it was made: the order was cancelled.
    Closed,
    /// The charge was closed before it was made: the order's deadline had passed.
    DeadlineExceeded,
    /// The charge was refunded: the order was cancelled after it was paid.
    Refunded,
    /// An earlier order had the same name.
    AlreadyExists,
    /// Any value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl From<Outcome> for WireOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Paid => WireOutcome::Charged,
            Outcome::Refused(Refusal::InsufficientFunds) => WireOutcome::InsufficientFunds,
            Outcome::Refused(Refusal::AccountNotFound) => WireOutcome::AccountNotFound,
            Outcome::Refused(Refusal::Cancelled) => WireOutcome::Closed,
            Outcome::Refused(Refusal::DeadlineExceeded) => WireOutcome::DeadlineExceeded,
            Outcome::Refused(Refusal::Refunded) => WireOutcome::Refunded,
            Outcome::Refused(Refusal::AlreadyExists) => WireOutcome::AlreadyExists,
            // Never sent: there is nothing to notify a customer of.
            Outcome::Refused(Refusal::InvalidOrder) | Outcome::Undecided | Outcome::Unknown => WireOutcome::Unknown,
        }
    }
}

impl From<WireOutcome> for Outcome {
    fn from(outcome: WireOutcome) -> Self {
        match outcome {
            WireOutcome::Charged => Outcome::Paid,
            WireOutcome::InsufficientFunds => Outcome::Refused(Refusal::InsufficientFunds),
            WireOutcome::AccountNotFound => Outcome::Refused(Refusal::AccountNotFound),
            WireOutcome::Closed => Outcome::Refused(Refusal::Cancelled),
            WireOutcome::DeadlineExceeded => Outcome::Refused(Refusal::DeadlineExceeded),
            WireOutcome::Refunded => Outcome::Refused(Refusal::Refunded),
            WireOutcome::AlreadyExists => Outcome::Refused(Refusal::AlreadyExists),
            WireOutcome::Unknown => Outcome::Unknown,
        }
    }
}

/// The outcomes of a charge that billing sends, for its OpenAPI document.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(as = Outcome)]
pub enum ChargeOutcome {
    /// The account was charged.
    Charged,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// The charge was closed before it was made: the order was cancelled.
    Closed,
    /// An earlier charge of the same reference was made.
    AlreadyExists,
}

/// Serializes an outcome.
///
/// # Errors
/// The errors of the serializer.
pub fn serialize<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    WireOutcome::from(*outcome).serialize(serializer)
}

/// Deserializes an outcome. A value that this version does not know becomes [`Outcome::Unknown`].
///
/// # Errors
/// The error of the deserializer, if the value is not a string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Outcome, D::Error> {
    WireOutcome::deserialize(deserializer).map(Outcome::from)
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;
    use utoipa::PartialSchema;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder(#[serde(with = "super")] Outcome);

    #[test]
    fn each_outcome_that_is_sent_is_read_back() {
        let refusals = Refusal::iter().filter(|refusal| *refusal != Refusal::InvalidOrder).map(Outcome::Refused);
        for outcome in refusals.chain([Outcome::Paid]) {
            let text = serde_json::to_string(&Holder(outcome)).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), Holder(outcome), "{text}");
        }
    }

    #[test]
    fn a_value_of_a_newer_version_is_unknown_and_never_a_refusal() {
        for text in [r#""AccountFrozen""#, r#""""#, r#""charged""#] {
            assert_eq!(serde_json::from_str::<Holder>(text).unwrap(), Holder(Outcome::Unknown), "{text}");
        }
        for outcome in [Outcome::Undecided, Outcome::Unknown, Outcome::Refused(Refusal::InvalidOrder)] {
            let text = serde_json::to_string(&Holder(outcome)).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), Holder(Outcome::Unknown), "{outcome:?}");
        }
        assert!(serde_json::from_str::<Holder>("1").is_err());
    }

    #[test]
    fn the_schema_of_a_charge_lists_each_outcome_that_billing_sends() {
        fn is_sent_by_billing(refusal: Refusal) -> bool {
            match refusal {
                Refusal::InsufficientFunds | Refusal::AccountNotFound | Refusal::Cancelled | Refusal::AlreadyExists => true,
                Refusal::DeadlineExceeded | Refusal::Refunded | Refusal::InvalidOrder => false,
            }
        }
        let refusals = Refusal::iter().filter(|refusal| is_sent_by_billing(*refusal)).map(Outcome::Refused);
        let sent: Vec<WireOutcome> = std::iter::once(Outcome::Paid).chain(refusals).map(WireOutcome::from).collect();
        let schema = serde_json::to_value(ChargeOutcome::schema()).unwrap();
        assert_eq!(schema["enum"], serde_json::to_value(sent).unwrap());
    }
}
