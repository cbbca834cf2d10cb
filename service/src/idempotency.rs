//! Reads the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{StatusCode, request::Parts},
};

use crate::Problem;

/// The header's name.
pub use orders_contracts::IDEMPOTENCY_KEY as HEADER;

/// A key that identifies a request, so that a repeated request has no second effect. A key has 1 to
/// 255 visible ASCII characters. Surrounding double quotes are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a key. Returns `None` if the text is not a valid key.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let is_valid = (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
        is_valid.then(|| IdempotencyKey(text.to_owned()))
    }

    fn from_parts(parts: &Parts) -> Result<Option<Self>, Problem> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let key = value.to_str().ok().and_then(Self::parse).filter(|_| values.next().is_none());
        key.map(Some).ok_or_else(|| Problem {
            field: Some("Idempotency-Key".to_owned()),
            ..Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key: send one key of 1 to 255 visible ASCII characters")
        })
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Self::from_parts(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::from_parts(parts)?
            .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key: this call needs the header"))
    }
}
