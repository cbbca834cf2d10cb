//! Billing over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use orders_crds::{Money, Reason, money::json_number};
use orders_service::{
    http_client::{self, CallError},
    idempotency,
    token_file::TokenFile,
};
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};

use super::{Billing, NoAnswer, Payment};
use crate::purchase::Purchase;

/// How long one call may take. Beyond it the charge is unknown and asked for again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Larger than any right answer, in bytes.
const MAX_ANSWER: usize = 4096;

/// Billing's HTTP API.
#[derive(Clone, Debug)]
pub struct HttpBilling {
    client: Client,
    url: String,
    token: TokenFile,
}

#[derive(Serialize)]
struct Withdrawal<'a> {
    login: &'a str,
    #[serde(with = "json_number")]
    balance: Money,
}

#[derive(Deserialize)]
struct Answer {
    login: String,
    balance: Option<Balance>,
    key: String,
    #[serde(with = "json_number")]
    amount: Money,
    outcome: AnsweredOutcome,
}

#[derive(Deserialize)]
struct Balance(#[serde(with = "json_number")] Money);

#[derive(Deserialize)]
enum AnsweredOutcome {
    Charged,
    InsufficientFunds,
    AccountNotFound,
    Closed,
}

impl HttpBilling {
    /// The service at this URL, shown this token.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Ok(HttpBilling { client: http_client::client(TIMEOUT)?, url: url.trim_end_matches('/').to_owned(), token })
    }

    async fn withdraw(&self, purchase: &Purchase) -> Result<(StatusCode, Vec<u8>), CallError> {
        let response = self
            .client
            .post(format!("{}/billing/withdraw", self.url))
            .header(AUTHORIZATION, self.token.bearer().await?)
            .header(idempotency::HEADER, &purchase.key)
            .json(&Withdrawal { login: purchase.login.as_ref(), balance: purchase.amount })
            .send()
            .await?;
        let status = response.status();
        Ok((status, http_client::body(response, MAX_ANSWER).await?.into()))
    }
}

#[async_trait]
impl Billing for HttpBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        let (status, body) = self.withdraw(purchase).await.map_err(|error| NoAnswer(format!("billing: {error}")))?;
        if status != StatusCode::OK {
            return Err(NoAnswer(format!("billing answered {status}: {}", excerpt(&body))));
        }
        read(&body, purchase)
    }
}

/// An answer counts only if it speaks of this very purchase.
fn read(body: &[u8], purchase: &Purchase) -> Result<Payment, NoAnswer> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| NoAnswer(format!("billing's answer cannot be read: {error}")))?;
    if answer.key != purchase.key || answer.amount != purchase.amount || answer.login != purchase.login.as_ref() {
        return Err(NoAnswer("billing's answer is about another charge".to_owned()));
    }
    let balance = answer.balance.map(|Balance(balance)| balance);
    match (answer.outcome, balance) {
        (AnsweredOutcome::Charged, Some(balance)) => Ok(Payment::Charged { balance }),
        (AnsweredOutcome::Charged, None) => Err(NoAnswer("billing's answer has no balance".to_owned())),
        (AnsweredOutcome::InsufficientFunds, balance) => Ok(Payment::Refused { reason: Reason::InsufficientFunds, balance }),
        (AnsweredOutcome::Closed, balance) => Ok(Payment::Refused { reason: Reason::Cancelled, balance }),
        (AnsweredOutcome::AccountNotFound, balance) => Ok(Payment::Refused { reason: Reason::AccountNotFound, balance }),
    }
}

/// The start of an answer that was not expected, for the log and the status.
pub(super) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use orders_crds::OrderSpec;

    use super::*;

    fn purchase() -> Purchase {
        let spec = OrderSpec { id: None, login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into() };
        Purchase::read("k", &spec).unwrap()
    }

    fn answer(body: &str) -> Result<Payment, NoAnswer> {
        read(body.as_bytes(), &purchase())
    }

    #[test]
    fn a_definite_answer_about_this_purchase_is_an_outcome() {
        assert_eq!(
            answer(r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"Charged","repeated":false}"#),
            Ok(Payment::Charged { balance: Money::from_minor(500) })
        );
        assert_eq!(
            answer(r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"InsufficientFunds"}"#),
            Ok(Payment::Refused { reason: Reason::InsufficientFunds, balance: Some(Money::from_minor(500)) })
        );
    }

    #[test]
    fn anything_else_is_no_answer() {
        for body in [
            "",
            "{",
            r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"Maybe"}"#,
            r#"{"login":"a","balance":5.0,"key":"other","amount":10.0,"outcome":"Charged"}"#,
            r#"{"login":"a","balance":5.0,"key":"k","amount":11.0,"outcome":"Charged"}"#,
            r#"{"login":"b","balance":5.0,"key":"k","amount":10.0,"outcome":"Charged"}"#,
            r#"{"login":"a","balance":null,"key":"k","amount":10.0,"outcome":"Charged"}"#,
        ] {
            assert!(answer(body).is_err(), "{body}");
        }
    }
}
