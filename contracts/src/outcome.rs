//! The serialized form of an order's outcome, for fields of type [`Outcome`] with
//! `#[serde(with = "outcome")]`.

use orders_crds::{Outcome, Refusal};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// An outcome in a request, a response or an event.
///
/// Billing sends the first four values, which are final for a charge's key. The operator sends all
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Outcome")]
pub enum Written {
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
    /// Any value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl From<Outcome> for Written {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Paid => Written::Charged,
            Outcome::Refused(Refusal::InsufficientFunds) => Written::InsufficientFunds,
            Outcome::Refused(Refusal::AccountNotFound) => Written::AccountNotFound,
            Outcome::Refused(Refusal::Cancelled) => Written::Closed,
            Outcome::Refused(Refusal::DeadlineExceeded) => Written::DeadlineExceeded,
            Outcome::Refused(Refusal::Refunded) => Written::Refunded,
            // Never sent: there is nothing to notify a customer of.
            Outcome::Refused(Refusal::InvalidOrder) | Outcome::Undecided | Outcome::Unknown => Written::Unknown,
        }
    }
}

impl From<Written> for Outcome {
    fn from(written: Written) -> Self {
        match written {
            Written::Charged => Outcome::Paid,
            Written::InsufficientFunds => Outcome::Refused(Refusal::InsufficientFunds),
            Written::AccountNotFound => Outcome::Refused(Refusal::AccountNotFound),
            Written::Closed => Outcome::Refused(Refusal::Cancelled),
            Written::DeadlineExceeded => Outcome::Refused(Refusal::DeadlineExceeded),
            Written::Refunded => Outcome::Refused(Refusal::Refunded),
            Written::Unknown => Outcome::Unknown,
        }
    }
}

/// The outcomes of a charge, which billing sends. The OpenAPI document of billing uses this type.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(as = Outcome)]
pub enum OfCharge {
    /// The account was charged.
    Charged,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// The charge was closed before it was made: the order was cancelled.
    Closed,
}

/// Serializes an outcome.
///
/// # Errors
/// The errors of the serializer.
pub fn serialize<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    Written::from(*outcome).serialize(serializer)
}

/// Deserializes an outcome. A value that this version does not know becomes [`Outcome::Unknown`].
///
/// # Errors
/// The error of the deserializer, if the value is not a string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Outcome, D::Error> {
    Written::deserialize(deserializer).map(Outcome::from)
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder(#[serde(with = "super")] Outcome);

    #[test]
    fn each_outcome_that_is_sent_reads_back() {
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
}
