//! Parameters of a URL, for lists whose parameters are few and checked one by one.

use std::collections::HashSet;

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};

use crate::Problem;

/// The longest name of a parameter that is repeated to the client, in characters.
const MAX_NAME: usize = 64;

/// The parameters in their order, each at most once.
///
/// # Errors
/// 422, naming the parameter that is there twice.
pub async fn parameters<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, rejection.body_text()))?;
    let mut seen = HashSet::new();
    match pairs.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        Some((name, _)) => Err(invalid(name, &"give each parameter once")),
        None => Ok(pairs),
    }
}

/// A parameter that is wrong: 422, with its name and why.
pub fn invalid(name: &str, why: &dyn std::fmt::Display) -> Problem {
    let name: String = name.chars().take(MAX_NAME).collect();
    Problem::invalid(name.clone(), format!("{name}: {why}"))
}

/// The number of rows on a page, from 1 to `max`.
///
/// # Errors
/// 422 if it is no such number.
pub fn limit(name: &str, value: &str, max: u16) -> Result<u16, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| invalid(name, &format!("must be a number between 1 and {max}")))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read(query: &str) -> Result<Vec<(String, String)>, Problem> {
        let request = Request::builder().uri(format!("/?{query}")).body(()).unwrap();
        parameters(&mut request.into_parts().0, &()).await
    }

    #[tokio::test]
    async fn each_parameter_may_be_there_once() {
        assert_eq!(read("a=1&b=%20").await.unwrap(), [("a".into(), "1".into()), ("b".into(), " ".into())]);
        let problem = read("a=1&b=2&a=1").await.unwrap_err();
        assert_eq!((problem.status, problem.field.as_deref()), (422, Some("a")));
        assert_eq!(read("").await.unwrap(), []);
    }

    #[test]
    fn a_page_has_one_row_at_least_and_no_more_than_the_bound() {
        assert_eq!(["1", "100"].map(|text| limit("limit", text, 100).unwrap()), [1, 100]);
        for text in ["", "0", "-1", "101", "1.0", "9999999999999999999999"] {
            assert_eq!(limit("limit", text, 100).unwrap_err().field.as_deref(), Some("limit"), "{text}");
        }
    }

    #[test]
    fn a_long_name_is_not_repeated_whole() {
        assert_eq!(invalid(&"x".repeat(1000), &"no").field.unwrap().len(), MAX_NAME);
    }
}
