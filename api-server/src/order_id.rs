//! The number of an order, the name of its resource, and how clients refer to it.

use std::fmt;

use orders_crds::Login;
use orders_service::{IdempotencyKey, Problem};
use sha2::{Digest, Sha256};

/// The largest id. A JavaScript client represents every integer up to it exactly.
const MAX: u64 = (1 << 53) - 1;

/// The maximum length of the name of a resource in Kubernetes, in characters.
const MAX_NAME: usize = 253;

/// An order's number: 1 to 2^53−1. The name of the resource is derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderId(i64);

impl OrderId {
    /// Generates a random id.
    pub fn random() -> Self {
        Self::from_bits(rand::random())
    }

    /// Derives the id from a customer's key, so that a repeated request names the same resource.
    /// `probe` selects the next number if another customer's order already has the number.
    pub fn of_key(login: &Login, key: &IdempotencyKey, probe: u8) -> Self {
        // A login has no line feed, so different (login, key, probe) never give the same text.
        let hash = Sha256::digest(format!("{login}\n{}\n{probe}", key.as_str()));
        let mut bits = [0; 8];
        bits.copy_from_slice(&hash[..8]);
        Self::from_bits(u64::from_be_bytes(bits))
    }

    /// Parses an id that a client sent. Returns `None` if the text is not a valid id.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|number| well_formed && (1..=MAX as i64).contains(number))?;
        Some(OrderId(number))
    }

    fn from_bits(bits: u64) -> Self {
        OrderId((bits % MAX) as i64 + 1)
    }

    /// The number.
    pub fn number(self) -> i64 {
        self.0
    }

    /// The name of the order's resource.
    pub fn resource_name(self) -> String {
        format!("order-{}", self.0)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The order that a client refers to: by its number, or by the name of its resource. An order that was created with kubectl
/// has only a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRef {
    name: String,
    id: Option<OrderId>,
}

impl OrderRef {
    /// Parses `14`, `order-14` or any other name of a resource. Returns `None` if the text is neither a
    /// number nor a name (a DNS subdomain, RFC 1123).
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return OrderId::parse(text).map(Self::from);
        }
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_label = |label: &str| {
            let is_end = |byte: Option<u8>| byte.is_some_and(is_alphanumeric);
            is_end(label.bytes().next())
                && is_end(label.bytes().last())
                && label.bytes().all(|byte| byte == b'-' || is_alphanumeric(byte))
        };
        let is_name = text.len() <= MAX_NAME && text.split('.').all(is_label);
        is_name.then(|| OrderRef { name: text.to_owned(), id: text.strip_prefix("order-").and_then(OrderId::parse) })
    }

    /// The name of the order's resource.
    pub fn resource_name(&self) -> &str {
        &self.name
    }

    /// Adds the number of this order, if it has one, to a problem that concerns it.
    #[must_use]
    pub fn add_to(&self, problem: Problem) -> Problem {
        match self.id {
            Some(id) => problem.with_id(id.number()),
            None => problem,
        }
    }
}

impl From<OrderId> for OrderRef {
    fn from(id: OrderId) -> Self {
        OrderRef { name: id.resource_name(), id: Some(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_number_or_a_name_of_a_resource() {
        for (text, name, number) in [
            ("14", "order-14", Some(14)),
            ("order-14", "order-14", Some(14)),
            ("order-014", "order-014", None),
            ("by-hand", "by-hand", None),
            ("a.b-c.7", "a.b-c.7", None),
        ] {
            let parsed = OrderRef::parse(text).unwrap();
            assert_eq!((parsed.resource_name(), parsed.id.map(OrderId::number)), (name, number), "{text}");
        }
        let (longest, too_long) = ("a".repeat(MAX_NAME), "a".repeat(MAX_NAME + 1));
        assert!(OrderRef::parse(&longest).is_some());
        for text in [
            "",
            "0",
            "014",
            "-1",
            "+1",
            "1.0.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a/b",
            "..",
            "A",
            "ä",
            "a b",
            "a?b",
            "9007199254740992",
            &too_long,
        ] {
            assert_eq!(OrderRef::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_stay_within_the_integers_that_javascript_represents_exactly() {
        assert_eq!(OrderId::from_bits(0).number(), 1);
        assert_eq!(OrderId::from_bits(MAX - 1).number(), MAX as i64);
        assert_eq!(OrderId::from_bits(u64::MAX).number(), OrderId::from_bits(u64::MAX % MAX).number());
    }

    #[test]
    fn only_the_canonical_form_of_an_id_is_parsed() {
        assert_eq!(OrderId::parse("14").map(OrderId::number), Some(14));
        for text in ["", "0", "014", "-1", "+1", "1.0", "9007199254740992", "99999999999999999999", "abc", "1/.."] {
            assert_eq!(OrderId::parse(text), None, "{text}");
        }
    }
}
