//! Notify's HTTP API: the router, the OpenAPI document, the authentication of callers and the
//! handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, State},
    http::{StatusCode, request::Parts},
};
use jiff::{Timestamp, tz::TimeZone};
use orders_contracts::notify::{ExportedMessage, LogEntry, MessageDelivery, NotifyRequest};
use orders_crds::Login;
use orders_service::{IdempotencyKey, Json, Problem, auth::Authenticator, problem::ServiceCallProblems, problem_examples};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    delivery::Delivery,
    log::Log,
    message::{Message, NewMessage, State as DeliveryState},
};

/// The maximum time that a caller waits for delivery. It is less than a second, so that the
/// operator shows a paid order within a second even if the mail server does not respond.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(500);

/// The maximum length of the text of a message, in characters.
const MAX_TEXT: usize = 2000;

/// The maximum number of messages on a page for the audit.
const PAGE_SIZE: i64 = 1000;

/// The state that the handlers share.
#[derive(Clone)]
pub struct Notify {
    /// The log of messages.
    pub log: Log,
    /// The delivery of messages.
    pub delivery: Delivery,
    /// The authenticator of callers.
    pub authenticator: Authenticator,
    /// The service account of the operator. It may request notifications of customers.
    pub operator_account: Arc<str>,
    /// The service account of the audit. It may read all messages, as the operator's account may.
    pub audit_account: Option<Arc<str>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orders-notify",
        description = "Messages to customers. Notify stores each message once for its key, delivers it over SMTP and logs it. This API is for the order services only. Each call, except the one that shows a customer's messages, needs a service-account token of audience `orders-notify`. Errors are `application/problem+json` (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "orders", url = "http://arch.homework")
    ),
    servers((url = "http://orders-notify", description = "In the namespace of a Helm release that is named orders")),
    tags((name = "messages", description = "Messages to customers"))
)]
struct ApiDoc;

fn documented() -> OpenApiRouter<Notify> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(send))
        .routes(routes!(show_log))
        .routes(routes!(list_messages))
        .routes(routes!(resend))
}

/// Returns the OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    problem_examples::add(&mut document);
    document
}

/// Returns the router of this API.
pub fn router(notify: Notify) -> Router {
    documented().split_for_parts().0.with_state(notify)
}

/// An extractor that accepts only the operator. It is the first parameter of a handler, so that the
/// service reads nothing else of an unauthorized request.
struct Operator;

impl FromRequestParts<Notify> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, notify: &Notify) -> Result<Self, Problem> {
        notify.authenticator.require(&parts.headers, &[&notify.operator_account]).await.map(|()| Operator)
    }
}

/// An extractor that accepts only the operator and the audit.
struct Auditor;

impl FromRequestParts<Notify> for Auditor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, notify: &Notify) -> Result<Self, Problem> {
        let (operator, audit) = (&notify.operator_account, &notify.audit_account);
        notify.authenticator.require(&parts.headers, &[operator, audit.as_ref().unwrap_or(operator)]).await.map(|()| Auditor)
    }
}

fn message_delivery(message: Message) -> MessageDelivery {
    MessageDelivery {
        key: message.key.clone(),
        attempts: message.attempts,
        last_error: message.last_error.clone(),
        dead_lettered: message.state() == DeliveryState::DeadLettered,
        entry: log_entry(message),
    }
}

fn log_entry(message: Message) -> LogEntry {
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

/// Notify a customer, once for each key.
///
/// The response is sent when the mail server has accepted the message. After half a second without
/// acceptance, the response contains the current state of the message, and delivery continues.
#[utoipa::path(
    post,
    path = "/notify",
    tag = "messages",
    params(("Idempotency-Key" = String, Header, description = "The message's key: the order's UID. Notify derives the Message-ID from it")),
    request_body = NotifyRequest,
    responses(
        (status = 200, description = "The message is stored; `is_sended` shows whether the mail server accepted it", body = MessageDelivery),
        (status = 400, description = "The `Idempotency-Key` is missing, or the JSON is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, or the key was used for another message", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
async fn send(
    _: Operator,
    State(notify): State<Notify>,
    key: IdempotencyKey,
    Json(request): Json<NotifyRequest>,
) -> Result<Json<MessageDelivery>, Problem> {
    check_text(&request.text)?;
    // The mail library decides which addresses it can send to.
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
    if orders_service::seeded_bugs::is_on("message-not-deduplicated") && notify.log.find_by_key(key.as_str()).await?.is_some() {
        notify
            .delivery
            .deliver(NewMessage { key: orders_service::seeded_bugs::unique_key(key.as_str()), ..new.clone() }, DELIVERY_TIMEOUT)
            .await?;
    }
    Ok(Json(message_delivery(notify.delivery.deliver(new, DELIVERY_TIMEOUT).await?)))
}

/// Resend a message whose delivery was given up.
///
/// Notify makes as many attempts as for a new message. A message that notify is still trying to
/// deliver stays unchanged.
#[utoipa::path(
    post,
    path = "/notify/messages/{id}/resend",
    tag = "messages",
    params(("id" = i64, Path, description = "The ID of the message")),
    responses(
        (status = 200, description = "The state of the message after at most half a second", body = MessageDelivery),
        (status = 404, description = "There is no message with this ID", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The message was already sent", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
async fn resend(_: Operator, State(notify): State<Notify>, Path(id): Path<i64>) -> Result<Json<MessageDelivery>, Problem> {
    let found = notify.log.find_by_id(id).await?;
    let message = found.ok_or_else(|| Problem::not_found("there is no message with this ID"))?;
    if message.state() == DeliveryState::Sent {
        return Err(Problem::new(StatusCode::CONFLICT, "the mail server has already accepted this message"));
    }
    Ok(Json(message_delivery(notify.delivery.resend(message, DELIVERY_TIMEOUT).await?)))
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
/// The response contains the latest 1000 messages, oldest first. It is empty if the login has no
/// messages. This call needs no token.
#[utoipa::path(
    get,
    path = "/notify/log/{login}",
    tag = "messages",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The messages", body = Vec<LogEntry>),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is overloaded or unavailable", body = Problem, content_type = "application/problem+json")
    )
)]
async fn show_log(State(notify): State<Notify>, Path(login): Path<String>) -> Result<Json<Vec<LogEntry>>, Problem> {
    let login = Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))?;
    let messages = notify.log.find_by_login(login.as_ref()).await?;
    Ok(Json(messages.into_iter().map(log_entry).collect()))
}

/// The start of a page of messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct After {
    /// The last `id` of the previous page; 0 for the first page.
    #[serde(default)]
    after: i64,
}

/// List all messages.
///
/// The messages are in the order of their arrival, 1000 per page. Only the service accounts of the
/// operator and the audit may call this.
#[utoipa::path(
    get,
    path = "/notify/messages",
    tag = "messages",
    params(After),
    responses(
        (status = 200, description = "A page of messages; the last page is empty", body = Vec<ExportedMessage>),
        ServiceCallProblems
    )
)]
async fn list_messages(
    _: Auditor,
    State(notify): State<Notify>,
    Query(After { after }): Query<After>,
) -> Result<Json<Vec<ExportedMessage>>, Problem> {
    let messages = notify.log.page(after, PAGE_SIZE).await?;
    let exported = |message: Message| ExportedMessage { key: message.key.clone(), entry: log_entry(message) };
    Ok(Json(messages.into_iter().map(exported).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtime_is_in_utc_without_a_zone_and_has_microseconds() {
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
        assert_eq!(log_entry(message).dtime, "2025-01-27T06:01:27.018191");
    }
}
