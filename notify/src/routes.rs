//! The HTTP API of notify.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    routing::{get, post},
};
use jiff::{Timestamp, tz::TimeZone};
use orders_crds::{EMail, Login};
use orders_service::{IdempotencyKey, Json, Problem, auth::Authenticator};
use serde::{Deserialize, Serialize};

use crate::{
    delivery::Delivery,
    log::{Log, Message, NewMessage},
};

/// How long a caller waits for delivery at most. Below a second, so that the
/// operator shows a paid order within one even when mail hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// The longest text of a message, in characters.
const MAX_TEXT: usize = 2000;

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
}

/// The routes.
pub fn router(notify: Notify) -> Router {
    Router::new().route("/notify", post(send)).route("/notify/log/{login}", get(log)).with_state(notify)
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyRequest {
    login: Login,
    email: EMail,
    text: String,
}

/// A message and how its delivery stands.
#[derive(Serialize)]
struct Delivered {
    #[serde(flatten)]
    entry: LogEntry,
    key: String,
    /// Failed attempts so far.
    attempts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// A message as the log shows it.
#[derive(Serialize)]
struct LogEntry {
    id: i64,
    login: String,
    email: String,
    /// When it was stored: UTC without a zone, microseconds.
    dtime: String,
    text: String,
    /// Whether the mail server accepted it.
    is_sended: bool,
}

impl From<Message> for LogEntry {
    fn from(message: Message) -> Self {
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
}

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
    let new = NewMessage { key: key.as_str(), login: request.login.as_ref(), email: request.email.as_ref(), text: &request.text };
    let message = notify.delivery.deliver(new, PATIENCE).await?;
    Ok(Json(Delivered {
        key: message.key.clone(),
        attempts: message.attempts,
        last_error: message.last_error.clone(),
        entry: message.into(),
    }))
}

fn check_text(text: &str) -> Result<(), Problem> {
    let length = text.chars().count();
    if length == 0 || length > MAX_TEXT || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Problem::invalid("text", format!("text: 1 to {MAX_TEXT} characters, no control characters but line feeds")));
    }
    Ok(())
}

async fn log(State(notify): State<Notify>, Path(login): Path<String>) -> Result<Json<Vec<LogEntry>>, Problem> {
    let login = Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))?;
    let messages = notify.log.of_login(login.as_ref()).await?;
    Ok(Json(messages.into_iter().map(LogEntry::from).collect()))
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
        };
        assert_eq!(LogEntry::from(message).dtime, "2025-01-27T06:01:27.018191");
    }
}
