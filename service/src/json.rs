//! A JSON request body, refused in words that name the field.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Problem;

/// A JSON body: extracts requests, answers responses.
///
/// Malformed JSON is 400; well-formed JSON with a missing, unknown or invalid
/// field is 422 and names it; another content type is 415; too large is 413.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(&request) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the body with Content-Type: application/json"));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        read(&body).map(Json)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_json(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads a body, or says what is wrong with it.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        explain(error.inner(), (path != ".").then_some(path))
    })?;
    deserializer.end().map_err(|error| explain(&error, None))?;
    Ok(value)
}

fn explain(error: &serde_json::Error, path: Option<String>) -> Problem {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if !error.is_data() {
        return Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {text}"));
    }
    match path.or_else(|| quoted_field(&text)) {
        Some(field) => Problem::invalid(field.clone(), format!("{field}: {text}")),
        None => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text),
    }
}

/// serde names a missing or unknown field in its message only.
fn quoted_field(text: &str) -> Option<String> {
    let about_a_field = ["missing field `", "unknown field `", "duplicate field `"].iter().any(|start| text.starts_with(start));
    about_a_field.then(|| text.split('`').nth(1).map(|name| name.chars().take(64).collect())).flatten()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code)]
        count: u8,
    }

    fn problem(body: &[u8]) -> (u16, Option<String>) {
        let problem = read::<Body>(body).unwrap_err();
        (problem.status, problem.field)
    }

    #[test]
    fn malformed_json_is_400() {
        for body in [&b"{"[..], b"", b"\xff\xfe", b"{\"count\":NaN}", b"{\"count\":1} x"] {
            assert_eq!(problem(body), (400, None), "{body:?}");
        }
    }

    #[test]
    fn a_wrong_field_is_422_and_named() {
        for body in [r#"{"count":"1"}"#, r#"{"count":256}"#, r#"{}"#, r#"{"count":1,"count":2}"#] {
            assert_eq!(problem(body.as_bytes()), (422, Some("count".to_owned())), "{body}");
        }
        assert_eq!(problem(br#"{"count":1,"extra":0}"#), (422, Some("extra".to_owned())));
    }
}
