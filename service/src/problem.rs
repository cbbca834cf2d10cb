//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// The content type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Describes an error, for people and for programs (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Type of the problem: `about:blank`, because the status identifies the problem.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: &'static str,
    /// The HTTP status in words.
    pub title: &'static str,
    /// The HTTP status code.
    pub status: u16,
    /// Description of the error in this request, and of its remedy.
    pub detail: String,
    /// The invalid field of the request, if the error concerns a single field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The number of the order that the problem concerns, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Number of seconds after which the client may try again. It is sent as `Retry-After`.
    #[serde(skip)]
    pub retry_after_seconds: Option<u32>,
    /// Whether the content encoding of the request is the problem. Then `Accept-Encoding: identity` says that
    /// there must be none (RFC 9110, 15.5.16).
    #[serde(skip)]
    pub is_encoding_refused: bool,
}

impl Problem {
    /// Creates a problem with this status and detail.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            id: None,
            retry_after_seconds: None,
            is_encoding_refused: false,
        }
    }

    /// 422: the value of `field` is invalid.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem { field: Some(field.into()), ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// 503 with `Retry-After: 1`: a dependency of this service does not respond, and nothing was done.
    /// Proxies repeat such a request by themselves.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Problem { retry_after_seconds: Some(1), ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 504 with `Retry-After: 1`: it is unknown whether the request had its effect.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Problem { retry_after_seconds: Some(1), ..Problem::new(StatusCode::GATEWAY_TIMEOUT, detail) }
    }

    /// 500: an internal error. The cause is logged and not sent to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error; its cause is in the service's log")
    }

    /// Adds the number of the order that the problem concerns.
    #[must_use]
    pub fn with_id(self, id: i64) -> Self {
        Problem { id: Some(id), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (retry_after, is_encoding_refused) = (self.retry_after_seconds, self.is_encoding_refused);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if is_encoding_refused {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

/// The problems that any call between services may return, for the OpenAPI documents.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes responses")]
pub enum ServiceCallProblems {
    /// The request has no token that is valid for this service.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The token belongs to an account that may not make this call.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// The database or the token review is busy or down. Nothing was done.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The database did not reply. Whether the call had its effect is not known.
    #[response(status = 504, content_type = "application/problem+json")]
    Unknown(Problem),
}
