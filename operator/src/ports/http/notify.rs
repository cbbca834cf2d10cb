//! The client of notify over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use orders_contracts::{
    IDEMPOTENCY_KEY,
    notify::{MessageDelivery, NotifyRequest},
    texts,
};
use orders_crds::{Money, Outcome, Refusal, order::message_key};
use orders_service::{
    http_client::{CallError, Peer},
    token_file::TokenFile,
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::billing::excerpt;
use crate::ports::{Delivery, Notice, Notify, Purchase, UnknownResult};

/// How long one call may take. This is more than notify waits for the mail server. Together with a
/// charge it is less than a second, so that the status shows the outcome within a second.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The largest response that is read, in bytes. Every correct response is smaller.
const MAX_RESPONSE: usize = 16 * 1024;

/// The client of notify's HTTP API.
#[derive(Clone, Debug)]
pub struct HttpNotify(Peer);

/// The message that notify has under the key of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The message that the order is paid.
    Paid(Delivery),
    /// The message that the order is cancelled.
    Cancelled(Delivery),
}

/// The problem of a request that notify refuses because of one of its fields.
#[derive(Deserialize)]
struct FieldProblem {
    detail: String,
    field: String,
}

impl HttpNotify {
    /// Creates a client of the service at this URL, which authenticates with this token.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Peer::new(url, Some(token), TIMEOUT, MAX_RESPONSE).map(HttpNotify)
    }

    async fn post(&self, key: &str, message: &NotifyRequest) -> Result<(StatusCode, impl AsRef<[u8]>), CallError> {
        self.0.send(self.0.request(Method::POST, "/notify").header(IDEMPOTENCY_KEY, key).json(message)).await
    }
}

impl HttpNotify {
    /// Requests one of the messages that may exist under the key of a charge: that the order is paid,
    /// or that it is cancelled. The first that is stored under the key stays. `is_paid_preferred`: which
    /// of them is requested if there is none yet. The result is the message that notify has.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown which message notify has.
    pub async fn claim(
        &self,
        purchase: &Purchase,
        balance: Option<Money>,
        is_paid_preferred: bool,
    ) -> Result<Claim, UnknownResult> {
        #[cfg(debug_assertions)]
        if orders_service::seeded_bugs::is_on("void-without-notify") && !is_paid_preferred {
            return Ok(Claim::Cancelled(Delivery::Sent));
        }
        let (paid, cancelled) = (Outcome::Paid, Outcome::Refused(Refusal::Cancelled));
        let outcomes = if is_paid_preferred { [paid, cancelled] } else { [cancelled, paid] };
        for outcome in outcomes {
            if let Some(delivery) = self.request(purchase, &Notice { outcome, balance, resends: 0 }).await? {
                return Ok(if outcome == Outcome::Paid { Claim::Paid(delivery) } else { Claim::Cancelled(delivery) });
            }
        }
        Err(UnknownResult("notify has another message under the key of this charge".to_owned()))
    }

    /// Requests a message. Returns `None` if notify has another message under its key.
    async fn request(&self, purchase: &Purchase, notice: &Notice) -> Result<Option<Delivery>, UnknownResult> {
        let text = texts::for_outcome(notice.outcome, &purchase.login, purchase.amount, notice.balance);
        let text = text.ok_or_else(|| UnknownResult("there is no message for this outcome".to_owned()))?;
        let key = message_key(&purchase.key, notice.outcome);
        let message = NotifyRequest {
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            text,
            resends: u8::try_from(notice.resends).unwrap_or(u8::MAX),
        };
        let (status, body) = self.post(&key, &message).await.map_err(|error| UnknownResult(format!("notify: {error}")))?;
        parse(status, body.as_ref(), &key)
    }
}

#[async_trait]
impl Notify for HttpNotify {
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, UnknownResult> {
        let delivery = self.request(purchase, notice).await?;
        delivery.ok_or_else(|| UnknownResult("notify has another message under this key".to_owned()))
    }
}

/// Parses notify's response. The response counts only if it is about this message. `None`: notify has
/// another message under this key.
fn parse(status: StatusCode, body: &[u8], expected: &str) -> Result<Option<Delivery>, UnknownResult> {
    let unexpected = || UnknownResult(format!("notify responded {status}: {}", excerpt(body)));
    match status {
        StatusCode::OK => {
            let delivered: MessageDelivery = serde_json::from_slice(body).map_err(|_| unexpected())?;
            if delivered.key != expected {
                return Err(UnknownResult("notify's response is about another message".to_owned()));
            }
            Ok(Some(match (delivered.entry.is_sended, delivered.dead_lettered) {
                (true, _) => Delivery::Sent,
                (false, true) => Delivery::DeadLettered { error: delivered.last_error.unwrap_or_default() },
                (false, false) => Delivery::Delivering { last_error: delivered.last_error },
            }))
        }
        // Only a refusal of the address or of the text concerns the message itself.
        StatusCode::UNPROCESSABLE_ENTITY => match serde_json::from_slice(body) {
            Ok(FieldProblem { detail, field }) if field == "email" || field == "text" => {
                Ok(Some(Delivery::Undeliverable { error: detail }))
            }
            Ok(FieldProblem { field, .. }) if field == "Idempotency-Key" => Ok(None),
            _ => Err(unexpected()),
        },
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(status: u16, body: &str) -> Result<Delivery, UnknownResult> {
        parse(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "k").map(|delivery| delivery.expect("a message"))
    }

    /// A response about a message, with these additional fields.
    fn body(rest: &str) -> String {
        format!(r#"{{"id":1,"login":"a","email":"a@b.cd","dtime":"2025-01-27T06:01:27.018191","text":"t","attempts":0,{rest}}}"#)
    }

    #[test]
    fn a_response_has_the_state_of_the_message() {
        assert_eq!(delivery(200, &body(r#""key":"k","is_sended":true"#)), Ok(Delivery::Sent));
        assert_eq!(delivery(200, &body(r#""key":"k","is_sended":false"#)), Ok(Delivery::Delivering { last_error: None }));
        assert_eq!(
            delivery(200, &body(r#""key":"k","is_sended":false,"dead_lettered":true,"last_error":"no""#)),
            Ok(Delivery::DeadLettered { error: "no".to_owned() })
        );
        let refused = delivery(422, r#"{"status":422,"detail":"email: no","field":"email"}"#);
        assert_eq!(refused, Ok(Delivery::Undeliverable { error: "email: no".to_owned() }));
    }

    #[test]
    fn any_other_response_leaves_the_result_unknown() {
        for (status, body) in [
            (200, &*body(r#""key":"other","is_sended":true"#)),
            (200, "{"),
            (503, &*body(r#""key":"k","is_sended":true"#)),
            (401, ""),
            (422, r#"{"detail":"missing","field":"login"}"#),
        ] {
            assert!(delivery(status, body).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn another_message_under_the_key_is_neither_a_delivery_nor_an_error() {
        let reused = r#"{"detail":"reused","field":"Idempotency-Key"}"#;
        assert_eq!(parse(StatusCode::UNPROCESSABLE_ENTITY, reused.as_bytes(), "k"), Ok(None));
    }
}
