//! The client of billing over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use orders_contracts::{
    Amount, IDEMPOTENCY_KEY,
    billing::{Charge, Refund, RefundRequest, Withdrawal},
};
use orders_crds::Money;
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::ports::{Billing, NoAnswer, Payment, Purchase, is_of};

/// How long one call may take. After that the charge is unknown, and the request is repeated.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes. Every correct answer is smaller.
const MAX_ANSWER: usize = 4096;

/// The client of billing's HTTP API.
#[derive(Clone, Debug)]
pub struct HttpBilling(Peer);

impl HttpBilling {
    /// Creates a client of the service at this URL, which authenticates with this token.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        peer(url, token).map(HttpBilling)
    }

    async fn call(&self, path: &str, key: &str, body: &impl Serialize) -> Result<Vec<u8>, NoAnswer> {
        ask(&self.0, self.0.request(Method::POST, path).header(IDEMPOTENCY_KEY, key).json(body)).await
    }
}

/// Creates the HTTP client of the service at this URL, which authenticates with this token.
pub(super) fn peer(url: &str, token: TokenFile) -> Result<Peer, reqwest::Error> {
    Peer::new(url, Some(token), TIMEOUT, MAX_ANSWER)
}

/// Sends the request, and returns the body of a definite answer.
pub(super) async fn ask(billing: &Peer, request: RequestBuilder) -> Result<Vec<u8>, NoAnswer> {
    let (status, body) = billing.send(request).await.map_err(|error| NoAnswer(format!("billing: {error}")))?;
    if status != StatusCode::OK {
        return Err(NoAnswer(format!("billing answered {status}: {}", excerpt(&body))));
    }
    Ok(body.into())
}

#[async_trait]
impl Billing for HttpBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        let body = Withdrawal { login: purchase.login.clone(), balance: purchase.amount };
        read_charge(&self.call("/billing/withdraw", &purchase.key, &body).await?, purchase)
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        let body = Withdrawal { login: purchase.login.clone(), balance: purchase.amount };
        // A key is a UID, at most with a dot and a number: it needs no escaping in a path.
        let path = format!("/billing/charges/{}/close", purchase.key);
        read_charge(&self.call(&path, &purchase.key, &body).await?, purchase)
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, NoAnswer> {
        let body = RefundRequest { charge: purchase.key.clone(), login: purchase.login.clone(), balance: purchase.amount };
        read_refund(&self.call("/billing/refund", &purchase.key, &body).await?, purchase)
    }
}

fn read_charge(body: &[u8], purchase: &Purchase) -> Result<Payment, NoAnswer> {
    let answer: Charge = read(body)?;
    is_of(purchase, &answer.key, &answer.login, answer.amount)?;
    Payment::new(answer.outcome, answer.balance.map(|Amount(balance)| balance))
}

fn read_refund(body: &[u8], purchase: &Purchase) -> Result<Money, NoAnswer> {
    let answer: Refund = read(body)?;
    is_of(purchase, &answer.charge, &answer.login, answer.amount)?;
    Ok(answer.balance)
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, NoAnswer> {
    serde_json::from_slice(body).map_err(|error| NoAnswer(format!("billing's answer cannot be read: {error}")))
}

/// The start of an unexpected answer, for the log and the status.
pub(super) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use orders_crds::{OrderSpec, Refusal};

    use super::*;

    fn purchase() -> Purchase {
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        Purchase::read("k", 1, &spec).unwrap()
    }

    fn answer(body: &str) -> Result<Payment, NoAnswer> {
        read_charge(body.as_bytes(), &purchase())
    }

    #[test]
    fn a_refund_counts_only_if_it_is_of_this_charge() {
        let answer = |body: &str| read_refund(body.as_bytes(), &purchase());
        let right = r#"{"login":"a","balance":15.0,"key":"k","charge":"k","amount":10.0,"repeated":false}"#;
        assert_eq!(answer(right), Ok(Money::from_minor(1500)));
        for (was, is) in
            [(r#""charge":"k""#, r#""charge":"x""#), ("10.0", "9.0"), (r#""login":"a""#, r#""login":"b""#), ("}", "")]
        {
            assert!(answer(&right.replace(was, is)).is_err(), "{is}");
        }
    }

    #[test]
    fn a_definite_answer_about_this_purchase_is_an_outcome() {
        assert_eq!(
            answer(r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"Charged","repeated":false}"#),
            Ok(Payment::Charged { balance: Money::from_minor(500) })
        );
        assert_eq!(
            answer(r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"InsufficientFunds"}"#),
            Ok(Payment::Refused { refusal: Refusal::InsufficientFunds, balance: Some(Money::from_minor(500)) })
        );
    }

    #[test]
    fn anything_else_is_no_answer() {
        for body in [
            "",
            "{",
            // An outcome of a newer version.
            r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"AccountFrozen"}"#,
            r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"Refunded"}"#,
            r#"{"login":"a","balance":5.0,"key":"other","amount":10.0,"outcome":"Charged"}"#,
            r#"{"login":"a","balance":5.0,"key":"k","amount":11.0,"outcome":"Charged"}"#,
            r#"{"login":"b","balance":5.0,"key":"k","amount":10.0,"outcome":"Charged"}"#,
            r#"{"login":"a","balance":null,"key":"k","amount":10.0,"outcome":"Charged"}"#,
        ] {
            assert!(answer(body).is_err(), "{body}");
        }
    }
}
