//! The values of requests, and responses to repeated calls.

use axum::{
    http::HeaderValue,
    response::{IntoResponse, Response},
};
use orders_crds::{Login, Money};
use orders_service::{Json, Problem};
use serde::Serialize;

pub(super) fn parse_login(login: String) -> Result<Login, Problem> {
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}

pub(super) fn require_positive(amount: Money) -> Result<Money, Problem> {
    amount.require_positive().map_err(|error| Problem::invalid("balance", format!("balance: {error}")))
}

/// Builds a response. The response to a repeated call has the header `Idempotent-Replayed: true`.
pub(super) fn respond<T: Serialize>(body: T, repeated: bool) -> Response {
    let mut response = Json(body).into_response();
    if repeated {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
