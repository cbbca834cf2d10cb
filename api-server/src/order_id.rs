//! The number of an order, and the name of its resource.

use std::fmt;

use orders_crds::Login;
use orders_service::IdempotencyKey;
use sha2::{Digest, Sha256};

/// The largest id. A JavaScript client represents every integer up to it exactly.
const MAX: u64 = (1 << 53) - 1;

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

#[cfg(test)]
mod tests {
    use super::*;

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
