//! JSON bodies of requests and responses. The problem for an invalid request body names the field.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::Problem;

/// How much of a client's text a response quotes, in characters.
const MAX_QUOTED: usize = 200;

/// The maximum length of a field's name in a response, in characters.
const MAX_FIELD: usize = 64;

/// A JSON body: an extractor for requests, and a response.
///
/// Malformed JSON is answered 400, and the problem says what the body is instead. Well-formed JSON that is not an object is answered 422. A
/// missing, unknown or invalid field is also answered 422, and the problem names the field. Another
/// content type, charset or content encoding is answered 415, and a body that is too large 413.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(&body(request, state).await?, Shape::Object).map(Json)
    }
}

/// A JSON array as the body of a request. Invalid bodies are answered as for [`Json`].
#[derive(Clone, Debug)]
pub struct JsonList<T>(pub Vec<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonList<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(&body(request, state).await?, Shape::Array).map(JsonList)
    }
}

/// The expected type of a whole body.
#[derive(Clone, Copy)]
enum Shape {
    Object,
    Array,
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let unsupported = |detail| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    match charset(&request) {
        None => return Err(unsupported("send the body with Content-Type: application/json".to_owned())),
        Some(charset) if !["", "utf-8", "utf8"].contains(&&*charset) => {
            return Err(unsupported(format!("the body is in {charset}; send it in UTF-8, as RFC 8259 requires")));
        }
        Some(_) => {}
    }
    let encodings = request.headers().get_all(header::CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    if let Some(encoding) = encodings.flat_map(|value| value.split(',')).map(str::trim).find(|name| !is_identity(name)) {
        let detail = format!("the body has the content encoding {}; send it without", shorten(encoding, MAX_FIELD));
        return Err(Problem { is_encoding_refused: true, ..unsupported(detail) });
    }
    Bytes::from_request(request, state).await.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_identity(encoding: &str) -> bool {
    encoding.is_empty() || encoding.eq_ignore_ascii_case("identity")
}

/// The charset of a JSON body in lowercase, empty if the request does not name one; `None` if the content
/// type is not JSON.
fn charset(request: &Request) -> Option<String> {
    let mut parts = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("application/json") {
        return None;
    }
    let charset = parts.filter_map(|parameter| parameter.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    Some(charset.map(|(_, value)| shorten(value.trim_matches('"'), MAX_FIELD).to_ascii_lowercase()).unwrap_or_default())
}

/// What a body is that is not UTF-8 JSON, if that can be told from its first bytes.
fn recognize(body: &[u8]) -> Option<&'static str> {
    match body {
        [] => Some("the body is empty; send a JSON object"),
        [0xef, 0xbb, 0xbf, ..] => Some("the body begins with a byte order mark; send UTF-8 without one, as RFC 8259 requires"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => {
            Some("the body is in UTF-16 or UTF-32; send it in UTF-8, as RFC 8259 requires")
        }
        [0x1f, 0x8b, ..] => Some("the body is compressed with gzip; send it without compression"),
        _ => None,
    }
}

/// Parses a body, or returns a problem that describes the error.
fn read<T: DeserializeOwned>(body: &[u8], shape: Shape) -> Result<T, Problem> {
    if let Some(what) = recognize(body) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, what));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        malformed(&format!("byte {} is not UTF-8; send the body in UTF-8, as RFC 8259 requires", error.valid_up_to() + 1))
    })?;
    // Check the syntax of the whole body first. Otherwise, an invalid value would hide a syntax
    // error that follows it.
    let json: &RawValue = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    // serde would also read a struct from an array of its fields' values.
    let (start, detail) = match shape {
        Shape::Object => ('{', "the body must be a JSON object"),
        Shape::Array => ('[', "the body must be a JSON array"),
    };
    if !json.get().starts_with(start) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let path = error.path().to_string();
        explain(error.inner(), (path != ".").then_some(path))
    })
}

fn explain(error: &serde_json::Error, path: Option<String>) -> Problem {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    if !error.is_data() {
        return malformed(&text);
    }
    // serde quotes the client's value, however long it is.
    let text = shorten(text, MAX_QUOTED);
    match path.or_else(|| quoted_field(&text)).map(|field| shorten(&field, MAX_FIELD)) {
        Some(field) => Problem::invalid(field.clone(), format!("{field}: {text}")),
        None => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text),
    }
}

fn malformed(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}"))
}

fn shorten(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The field that serde quotes. serde names a missing or unknown field only in its message.
fn quoted_field(text: &str) -> Option<String> {
    let is_about_a_field =
        ["missing field `", "unknown field `", "duplicate field `"].iter().any(|start| text.starts_with(start));
    is_about_a_field.then(|| text.split('`').nth(1).map(str::to_owned)).flatten()
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
        let problem = read::<Body>(body, Shape::Object).unwrap_err();
        (problem.status, problem.field)
    }

    #[test]
    fn malformed_json_is_400() {
        for body in
            [&b"{"[..], b"", b"\xff\xfe", b"{\"count\":NaN}", b"{\"count\":1} x", b"{\"count\":-0x10}", b"{\"count\":\"\xff\"}"]
        {
            assert_eq!(problem(body), (400, None), "{body:?}");
        }
    }

    #[test]
    fn a_body_that_is_no_plain_json_is_named() {
        let detail = |body: &[u8]| read::<Body>(body, Shape::Object).unwrap_err().detail;
        let utf16: Vec<u8> = "{\"count\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big_endian: Vec<u8> = "{\"count\":1}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (body, expected) in [
            (&b""[..], "empty"),
            (b"\xef\xbb\xbf{\"count\":1}", "byte order mark"),
            (&utf16, "UTF-16"),
            (&big_endian, "UTF-16"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"{\"count\":\"caf\xe9\"}", "byte 14 is not UTF-8"),
            (b"count=1", "line 1 column 1"),
            (b"{\"count\":1,}", "line 1 column 12"),
        ] {
            assert!(detail(body).contains(expected), "{body:?}: {}", detail(body));
        }
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(axum::body::Body::from(r#"{"count":1}"#)).unwrap()
    }

    #[tokio::test]
    async fn only_plain_json_in_utf_8_is_accepted() {
        let json = ("content-type", "application/json");
        for accepted in [
            &[json][..],
            &[("content-type", "Application/JSON; charset=UTF-8")],
            &[("content-type", "application/json;charset=\"utf-8\"")],
            &[json, ("content-encoding", "identity")],
        ] {
            assert!(Json::<Body>::from_request(request(accepted), &()).await.is_ok(), "{accepted:?}");
        }
        for (refused, is_encoding_refused) in [
            (&[][..], false),
            (&[("content-type", "text/plain")], false),
            (&[("content-type", "application/json; charset=utf-16")], false),
            (&[json, ("content-encoding", "gzip")], true),
            (&[json, ("content-encoding", "identity, br")], true),
        ] {
            let problem = Json::<Body>::from_request(request(refused), &()).await.unwrap_err();
            assert_eq!((problem.status, problem.is_encoding_refused), (415, is_encoding_refused), "{refused:?}");
        }
    }

    #[test]
    fn an_invalid_field_is_422_and_named() {
        for body in [r#"{"count":"1"}"#, r#"{"count":256}"#, r#"{}"#, r#"{"count":1,"count":2}"#] {
            assert_eq!(problem(body.as_bytes()), (422, Some("count".to_owned())), "{body}");
        }
        assert_eq!(problem(br#"{"count":1,"extra":0}"#), (422, Some("extra".to_owned())));
    }

    #[test]
    fn only_an_object_is_accepted() {
        for body in [&b"[1]"[..], b" [1]", b"1", b"null", b"\"count\""] {
            assert_eq!(problem(body), (422, None), "{body:?}");
        }
    }

    #[test]
    fn a_list_must_be_an_array_and_an_invalid_element_is_named_by_its_index() {
        let read = |body: &[u8]| read::<Vec<Body>>(body, Shape::Array);
        assert_eq!(read(br#"[{"count":1},{"count":2}]"#).map(|list| list.len()), Ok(2));
        for body in [&b"{}"[..], b"1", b"null", b"\"count\""] {
            assert_eq!(read(body).unwrap_err().status, 422, "{body:?}");
        }
        assert_eq!(read(br#"[{"count":1},{"count":-1}]"#).unwrap_err().field.as_deref(), Some("[1].count"));
    }

    #[test]
    fn a_response_quotes_only_the_beginning_of_a_long_value() {
        let long = "x".repeat(10_000);
        for body in [format!(r#"{{"count":"{long}"}}"#), format!(r#"{{"{long}":1}}"#)] {
            let problem = read::<Body>(body.as_bytes(), Shape::Object).unwrap_err();
            assert!(problem.detail.len() < 500 && problem.field.is_some_and(|field| field.len() < 100), "{body:.20}");
        }
    }
}
