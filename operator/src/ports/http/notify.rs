//! The client of notify over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use orders_contracts::{
    IDEMPOTENCY_KEY,
    notify::{Delivered, NotifyRequest},
    texts,
};
use orders_crds::order::message_key;
use orders_service::{
    http_client::{CallError, Peer},
    token_file::TokenFile,
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::billing::excerpt;
use crate::ports::{Delivery, NoAnswer, Notice, Notify, Purchase};

/// How long one call may take. This is more than notify waits for the mail server. Together with a
/// charge it is less than a second, so that the status shows the outcome within a second.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The largest answer that is read, in bytes. Every correct answer is smaller.
const MAX_ANSWER: usize = 16 * 1024;

/// The client of notify's HTTP API.
#[derive(Clone, Debug)]
pub struct HttpNotify(Peer);

#[derive(Deserialize)]
struct Refusal {
    detail: String,
    field: String,
}

impl HttpNotify {
    /// Creates a client of the service at this URL, which authenticates with this token.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Peer::new(url, Some(token), TIMEOUT, MAX_ANSWER).map(HttpNotify)
    }

    async fn post(&self, key: &str, message: &NotifyRequest) -> Result<(StatusCode, impl AsRef<[u8]>), CallError> {
        self.0.send(self.0.request(Method::POST, "/notify").header(IDEMPOTENCY_KEY, key).json(message)).await
    }
}

#[async_trait]
impl Notify for HttpNotify {
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, NoAnswer> {
        let text = texts::for_outcome(notice.outcome, &purchase.login, purchase.amount, notice.balance);
        let text = text.ok_or_else(|| NoAnswer("there is no message for this outcome".to_owned()))?;
        let key = message_key(&purchase.key, notice.outcome);
        let message = NotifyRequest {
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            text,
            resends: u8::try_from(notice.resends).unwrap_or(u8::MAX),
        };
        let (status, body) = self.post(&key, &message).await.map_err(|error| NoAnswer(format!("notify: {error}")))?;
        read(status, body.as_ref(), &key)
    }
}

/// Parses notify's answer. The answer counts only if it is about this message.
fn read(status: StatusCode, body: &[u8], expected: &str) -> Result<Delivery, NoAnswer> {
    let unexpected = || NoAnswer(format!("notify answered {status}: {}", excerpt(body)));
    match status {
        StatusCode::OK => {
            let answer: Delivered = serde_json::from_slice(body).map_err(|_| unexpected())?;
            if answer.key != expected {
                return Err(NoAnswer("notify's answer is about another message".to_owned()));
            }
            Ok(match (answer.entry.is_sended, answer.dead_lettered) {
                (true, _) => Delivery::Sent,
                (false, true) => Delivery::DeadLettered { why: answer.last_error.unwrap_or_default() },
                (false, false) => Delivery::Underway { last_error: answer.last_error },
            })
        }
        // Only a refusal of the address or of the text concerns the message itself.
        StatusCode::UNPROCESSABLE_ENTITY => match serde_json::from_slice(body) {
            Ok(Refusal { detail, field }) if field == "email" || field == "text" => Ok(Delivery::Refused { why: detail }),
            _ => Err(unexpected()),
        },
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Delivery, NoAnswer> {
        read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "k")
    }

    /// An answer about a message, with these additional fields.
    fn body(rest: &str) -> String {
        format!(r#"{{"id":1,"login":"a","email":"a@b.cd","dtime":"2025-01-27T06:01:27.018191","text":"t","attempts":0,{rest}}}"#)
    }

    #[test]
    fn reads_how_the_message_stands() {
        assert_eq!(answer(200, &body(r#""key":"k","is_sended":true"#)), Ok(Delivery::Sent));
        assert_eq!(answer(200, &body(r#""key":"k","is_sended":false"#)), Ok(Delivery::Underway { last_error: None }));
        assert_eq!(
            answer(200, &body(r#""key":"k","is_sended":false,"dead_lettered":true,"last_error":"no""#)),
            Ok(Delivery::DeadLettered { why: "no".to_owned() })
        );
        let refused = answer(422, r#"{"status":422,"detail":"email: no","field":"email"}"#);
        assert_eq!(refused, Ok(Delivery::Refused { why: "email: no".to_owned() }));
    }

    #[test]
    fn anything_else_is_no_answer() {
        for (status, body) in [
            (200, &*body(r#""key":"other","is_sended":true"#)),
            (200, "{"),
            (503, &*body(r#""key":"k","is_sended":true"#)),
            (401, ""),
            (422, r#"{"detail":"reused","field":"Idempotency-Key"}"#),
        ] {
            assert!(answer(status, body).is_err(), "{status} {body}");
        }
    }
}
