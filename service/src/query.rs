//! Parses the query string of a request into a struct that the handler defines.

use std::collections::HashSet;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::Problem;

/// The maximum length of a parameter's name in a problem, in characters.
const MAX_NAME: usize = 64;

/// The parameters of the query string as a `T`. Each parameter may occur at most once. `T` must
/// have `#[serde(deny_unknown_fields)]`, so that a misspelt parameter is refused and not ignored.
///
/// The rejection is 422 and names the parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

/// Parses a query string.
///
/// # Errors
/// 422; the problem names the parameter that is missing, unknown, invalid or repeated.
pub fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut names = HashSet::new();
    if let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| !names.insert(name.clone())) {
        return Err(invalid(&name, "repeated parameter; send each parameter once"));
    }
    let parameters = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(parameters).map_err(|error| {
        let (name, message) = (error.path().to_string(), error.inner().to_string());
        // A parameter that is missing has no path: serde names it in the message.
        let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        match missing {
            Some(name) => invalid(name, &format!("missing parameter; send it as ?{name}=…")),
            None => invalid(&name, &unknown_parameter(&message).unwrap_or(message)),
        }
    })
}

/// serde's message about an unknown field, in the words of a query string.
fn unknown_parameter(message: &str) -> Option<String> {
    let (_, expected) = message.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    Some(format!("unknown parameter; the parameters are {}", names.join(", ")))
}

fn invalid(name: &str, message: &str) -> Problem {
    let name: String = name.chars().take(MAX_NAME).collect();
    let message: String = message.chars().take(200).collect();
    Problem::invalid(name.clone(), format!("{name}: {message}"))
}

/// The number of rows on a page, from 1 to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<const MAX: u16>(pub u16);

impl<'de, const MAX: u16> Deserialize<'de> for Limit<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let limit = text.parse().ok().filter(|limit| (1..=MAX).contains(limit));
        limit.map(Limit).ok_or_else(|| serde::de::Error::custom(format!("must be a number between 1 and {MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        #[serde(default)]
        a: Option<i64>,
        #[serde(default)]
        limit: Option<Limit<100>>,
        name: String,
    }

    #[test]
    fn parameters_are_parsed() {
        let parameters: Parameters = read("name=%20x&a=-5&limit=100").unwrap();
        assert_eq!(parameters, Parameters { a: Some(-5), limit: Some(Limit(100)), name: " x".into() });
        assert_eq!(read::<Parameters>("name=").unwrap(), Parameters::default());
    }

    #[test]
    fn an_invalid_parameter_is_named() {
        for (query, field) in [
            ("", "name"),
            ("name=a&name=b", "name"),
            ("name=a&a=1.5", "a"),
            ("name=a&a=1&a=1", "a"),
            ("name=a&sort=b", "sort"),
            ("name=a&limit=0", "limit"),
            ("name=a&limit=101", "limit"),
            ("name=a&limit=", "limit"),
            ("name=a&limit=9999999999999999999999", "limit"),
        ] {
            let problem = read::<Parameters>(query).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)), "{query}: {problem:?}");
        }
        let unknown = read::<Parameters>("name=a&sort=b").unwrap_err();
        assert_eq!(unknown.detail, "sort: unknown parameter; the parameters are a, limit, name");
        let long = read::<Parameters>(&format!("name=a&{}=1", "x".repeat(1000))).unwrap_err();
        assert!(long.field.is_some_and(|field| field.len() == MAX_NAME) && long.detail.len() < 300);
    }
}
