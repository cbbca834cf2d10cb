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

use crate::ports::{Billing, Payment, Purchase, UnknownResult, check_matches, ledger_gate::LedgerGate};

/// How long one call may take. After that the charge is unknown, and the request is repeated.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest response that is read, in bytes. Every correct response is smaller.
const MAX_RESPONSE: usize = 4096;

/// The client of billing's HTTP API.
#[derive(Clone, Debug)]
pub struct HttpBilling {
    peer: Peer,
    gate: LedgerGate,
}

impl HttpBilling {
    /// Creates a client of the service at this URL, which authenticates with this token. Each call is for the
    /// ledger that the gate lets it through to.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile, gate: LedgerGate) -> Result<Self, reqwest::Error> {
        Ok(HttpBilling { peer: create_peer(url, token)?, gate })
    }

    async fn call(&self, path: &str, key: &str, body: &impl Serialize) -> Result<Vec<u8>, UnknownResult> {
        let request = self.peer.request(Method::POST, path).header(IDEMPOTENCY_KEY, key).json(body);
        send(&self.peer, self.gate.address(request)?).await
    }
}

/// Creates the HTTP client of the service at this URL, which authenticates with this token.
pub(super) fn create_peer(url: &str, token: TokenFile) -> Result<Peer, reqwest::Error> {
    Peer::new(url, Some(token), TIMEOUT, MAX_RESPONSE)
}

/// Sends the request, and returns the body of a definite response.
pub(super) async fn send(billing: &Peer, request: RequestBuilder) -> Result<Vec<u8>, UnknownResult> {
    let (status, body) = billing.send(request).await.map_err(|error| UnknownResult(format!("billing: {error}")))?;
    if status != StatusCode::OK {
        return Err(UnknownResult(format!("billing responded {status}: {}", excerpt(&body))));
    }
    Ok(body.into())
}

#[async_trait]
impl Billing for HttpBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        let authorization = purchase.authorization.clone();
        let body = Withdrawal { login: purchase.login.clone(), balance: purchase.amount, authorization };
        parse_charge(&self.call("/billing/withdraw", &purchase.key, &body).await?, purchase)
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        let body = Withdrawal { login: purchase.login.clone(), balance: purchase.amount, authorization: None };
        // A key is a UID, at most with a dot and a number: it needs no escaping in a path.
        let path = format!("/billing/charges/{}/close", purchase.key);
        parse_charge(&self.call(&path, &purchase.key, &body).await?, purchase)
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, UnknownResult> {
        let body = RefundRequest { charge: purchase.key.clone(), login: purchase.login.clone(), balance: purchase.amount };
        parse_refund(&self.call("/billing/refund", &purchase.key, &body).await?, purchase)
    }
}

fn parse_charge(body: &[u8], purchase: &Purchase) -> Result<Payment, UnknownResult> {
    let charge: Charge = parse(body)?;
    check_matches(purchase, &charge.key, &charge.login, charge.amount)?;
    Payment::new(charge.outcome, charge.balance.map(|Amount(balance)| balance))
}

fn parse_refund(body: &[u8], purchase: &Purchase) -> Result<Money, UnknownResult> {
    let refund: Refund = parse(body)?;
    check_matches(purchase, &refund.charge, &refund.login, refund.amount)?;
    Ok(refund.balance)
}

/// Parses the body of a response.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, UnknownResult> {
    serde_json::from_slice(body).map_err(|error| UnknownResult(format!("billing's response cannot be parsed: {error}")))
}

/// The start of an unexpected response, for the log and the status.
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

    fn payment(body: &str) -> Result<Payment, UnknownResult> {
        parse_charge(body.as_bytes(), &purchase())
    }

    #[test]
    fn a_refund_counts_only_if_it_is_about_this_charge() {
        let refund = |body: &str| parse_refund(body.as_bytes(), &purchase());
        let right = r#"{"login":"a","balance":15.0,"key":"k","charge":"k","amount":10.0,"repeated":false}"#;
        assert_eq!(refund(right), Ok(Money::from_minor(1500)));
        for (was, is) in
            [(r#""charge":"k""#, r#""charge":"x""#), ("10.0", "9.0"), (r#""login":"a""#, r#""login":"b""#), ("}", "")]
        {
            assert!(refund(&right.replace(was, is)).is_err(), "{is}");
        }
    }

    #[test]
    fn a_definite_response_about_this_purchase_is_an_outcome() {
        assert_eq!(
            payment(r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"Charged","repeated":false}"#),
            Ok(Payment::Charged { balance: Money::from_minor(500) })
        );
        assert_eq!(
            payment(r#"{"login":"a","balance":5.0,"key":"k","amount":10.0,"outcome":"InsufficientFunds"}"#),
            Ok(Payment::Refused { refusal: Refusal::InsufficientFunds, balance: Some(Money::from_minor(500)) })
        );
    }

    #[test]
    fn any_other_response_leaves_the_result_unknown() {
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
            assert!(payment(body).is_err(), "{body}");
        }
    }
}
