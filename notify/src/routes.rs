//! The HTTP API of notify.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, State},
    http::{StatusCode, request::Parts},
};
use jiff::{Timestamp, tz::TimeZone};
use orders_contracts::notify::{Delivered, KeyedEntry, LogEntry, NotifyRequest};
use orders_crds::Login;
use orders_service::{IdempotencyKey, Json, Problem, auth::Authenticator, problem::ServiceCallProblems, problem_examples};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    delivery::Delivery,
    log::{self as log_entry, Log, Message, NewMessage},
};

/// How long a caller waits for delivery at most. Below a second, so that the
/// operator shows a paid order within one even when mail hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// The longest text of a message, in characters.
const MAX_TEXT: usize = 2000;

/// Messages on a page for the audit, at most.
const PAGE: i64 = 1000;

/// What the routes work with.
#[derive(Clone)]
pub struct Notify {
    /// The messages.
    pub log: Log,
    /// Their delivery.
    pub delivery: Delivery,
    /// Who calls.
    pub authenticator: Authenticator,
    /// The account that may have customers notified.
    pub operator_account: Arc<str>,
    /// The account that may read all messages, besides the operator's.
    pub audit_account: Option<Arc<str>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders-notify",
        description = "Messages to customers: stored once for their key, delivered over SMTP, logged. For the order services only: calls that change or reveal something need a service-account token of audience `orders-notify`. Errors are `application/problem+json` (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "http://orders-notify", description = "In the namespace of a release that is named orders")),
    tags((name = "messages", description = "Messages to customers"))
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<Notify> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(send))
        .routes(routes!(log))
        .routes(routes!(all))
        .routes(routes!(resend))
}

/// The OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    problem_examples::add(&mut document);
    document
}

/// The routes.
pub fn router(notify: Notify) -> Router {
    documented().split_for_parts().0.with_state(notify)
}

/// The operator calls. As the first of a handler's parameters it has nothing
/// of a stranger's request looked at.
struct Operator;

impl FromRequestParts<Notify> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, notify: &Notify) -> Result<Self, Problem> {
        notify.authenticator.require(&parts.headers, &[&notify.operator_account]).await.map(|()| Operator)
    }
}

/// The operator or an audit calls.
struct Auditor;

impl FromRequestParts<Notify> for Auditor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, notify: &Notify) -> Result<Self, Problem> {
        let (operator, audit) = (&notify.operator_account, &notify.audit_account);
        notify.authenticator.require(&parts.headers, &[operator, audit.as_ref().unwrap_or(operator)]).await.map(|()| Auditor)
    }
}

fn delivered(message: Message) -> Delivered {
    Delivered {
        key: message.key.clone(),
        attempts: message.attempts,
        last_error: message.last_error.clone(),
        dead_lettered: message.state() == log_entry::State::DeadLettered,
        entry: shown(message),
    }
}

fn shown(message: Message) -> LogEntry {
    let created_at = Timestamp::from_microsecond(message.created_at).unwrap_or_default();
    LogEntry {
        id: message.id,
        login: message.login,
        email: message.email,
        dtime: created_at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string(),
        text: message.text,
        is_sended: message.sent_at.is_some(),
    }
}

/// Notify a customer, once for the key.
///
/// Answers when the mail server accepted the message, or after half a second as it stands;
/// delivery goes on either way.
#[utoipa::path(
    post,
    path = "/notify",
    tag = "messages",
    params(("Idempotency-Key" = String, Header, description = "The message's key: the order's UID. The Message-ID follows from it")),
    request_body = NotifyRequest,
    responses(
        (status = 200, description = "Stored; `is_sended` says whether the mail server accepted it", body = Delivered),
        (status = 400, description = "No key, or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, or the key was used for another message", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
async fn send(
    _: Operator,
    State(notify): State<Notify>,
    key: IdempotencyKey,
    Json(request): Json<NotifyRequest>,
) -> Result<Json<Delivered>, Problem> {
    check_text(&request.text)?;
    // The mail library has the last word on what it can send to.
    if let Err(error) = request.email.as_ref().parse::<lettre::Address>() {
        return Err(Problem::invalid("email", format!("email: {error}")));
    }
    let new = NewMessage {
        key: key.as_str().to_owned(),
        login: request.login.into(),
        email: request.email.into(),
        text: request.text,
        resends: request.resends.into(),
    };
    #[cfg(debug_assertions)]
    if orders_service::seeded_bugs::is_on("message-not-deduplicated") && notify.log.find(key.as_str()).await?.is_some() {
        notify
            .delivery
            .deliver(NewMessage { key: orders_service::seeded_bugs::another(key.as_str()), ..new.clone() }, PATIENCE)
            .await?;
    }
    Ok(Json(delivered(notify.delivery.deliver(new, PATIENCE).await?)))
}

/// Send a message again whose delivery was given up.
///
/// It is tried as often as a new one. A message that is still being tried is left as it is.
#[utoipa::path(
    post,
    path = "/notify/messages/{id}/resend",
    tag = "messages",
    params(("id" = i64, Path, description = "The message's number")),
    responses(
        (status = 200, description = "How it stands after half a second at most", body = Delivered),
        (status = 404, description = "No such message", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was sent already", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
async fn resend(_: Operator, State(notify): State<Notify>, Path(id): Path<i64>) -> Result<Json<Delivered>, Problem> {
    let found = notify.log.numbered(id).await?;
    let message = found.ok_or_else(|| Problem::not_found("there is no message with this number"))?;
    if message.state() == log_entry::State::Sent {
        return Err(Problem::new(StatusCode::CONFLICT, "the mail server has accepted this message already"));
    }
    Ok(Json(delivered(notify.delivery.resend(message, PATIENCE).await?)))
}

fn check_text(text: &str) -> Result<(), Problem> {
    let length = text.chars().count();
    if length == 0 || length > MAX_TEXT || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Problem::invalid("text", format!("text: 1 to {MAX_TEXT} characters, no control characters but line feeds")));
    }
    Ok(())
}

/// Show a customer's messages.
///
/// The latest 1000, oldest first; none for a login that was sent none. Needs no token.
#[utoipa::path(
    get,
    path = "/notify/log/{login}",
    tag = "messages",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The messages", body = Vec<LogEntry>),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is busy or away", body = Problem, content_type = "application/problem+json")
    )
)]
async fn log(State(notify): State<Notify>, Path(login): Path<String>) -> Result<Json<Vec<LogEntry>>, Problem> {
    let login = Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))?;
    let messages = notify.log.of_login(login.as_ref()).await?;
    Ok(Json(messages.into_iter().map(shown).collect()))
}

/// Where a page of messages begins.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct After {
    /// The last `id` of the page before; 0 for the first page.
    #[serde(default)]
    after: i64,
}

/// List all messages.
///
/// In the order of their arrival, 1000 a page. For the operator's account or the audit's.
#[utoipa::path(
    get,
    path = "/notify/messages",
    tag = "messages",
    params(After),
    responses(
        (status = 200, description = "A page; the last one is empty", body = Vec<KeyedEntry>),
        ServiceCallProblems
    )
)]
async fn all(
    _: Auditor,
    State(notify): State<Notify>,
    Query(After { after }): Query<After>,
) -> Result<Json<Vec<KeyedEntry>>, Problem> {
    let messages = notify.log.page(after, PAGE).await?;
    let keyed = |message: Message| KeyedEntry { key: message.key.clone(), entry: shown(message) };
    Ok(Json(messages.into_iter().map(keyed).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtime_is_utc_without_a_zone_in_microseconds() {
        let message = Message {
            id: 22,
            key: "k".into(),
            login: "Aurore56".into(),
            email: "Gage_Lind@gmail.com".into(),
            text: "Заказ успешно оформлен".into(),
            created_at: 1_737_957_687_018_191,
            sent_at: Some(1),
            attempts: 0,
            next_attempt_at: 0,
            last_error: None,
            dead_at: None,
            resends: 0,
        };
        assert_eq!(shown(message).dtime, "2025-01-27T06:01:27.018191");
    }
}
