//! The client of billing's accounts. It uses HTTP in every style of interaction: the styles concern
//! orders, and an account is opened only once.

use orders_contracts::{
    IDEMPOTENCY_KEY,
    billing::{LedgerId, OpenAccount},
};
use orders_crds::Login;
use orders_service::{http_client::Peer, problem, token_file::TokenFile};
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};

use super::billing;
use crate::ports::{UnknownResult, ledger_gate::LedgerGate};

/// The client of billing's accounts.
#[derive(Clone, Debug)]
pub struct Accounts {
    peer: Peer,
    gate: Option<LedgerGate>,
}

impl Accounts {
    /// Creates a client of the service at this URL, which authenticates with this token.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        Ok(Accounts { peer: billing::create_peer(url, token)?, gate: None })
    }

    /// Holds the calls that open accounts back while the gate is closed.
    #[must_use]
    pub fn behind(self, gate: LedgerGate) -> Self {
        Accounts { gate: Some(gate), ..self }
    }

    /// Opens an account with this login for the customer with this UID, unless the account exists.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown whether the account exists.
    pub async fn open(&self, login: &Login, uid: &str) -> Result<OpenAccount, UnknownResult> {
        // A login needs no escaping in a path.
        let request = self.peer.request(Method::PUT, &format!("/billing/account/{login}")).header(IDEMPOTENCY_KEY, uid);
        let request = match &self.gate {
            Some(gate) => gate.address(request)?,
            None => request,
        };
        parse(&billing::send(&self.peer, request).await?, login)
    }

    /// Returns the ID of billing's ledger. `None` if billing is of a version that has none.
    ///
    /// # Errors
    /// [`UnknownResult`].
    pub async fn ledger_id(&self) -> Result<Option<String>, UnknownResult> {
        let request = self.peer.request(Method::GET, "/billing/ledger");
        let exchanged = self.peer.exchange(request).await.map_err(|error| UnknownResult(format!("billing: {error}")))?;
        let (status, headers, body) = exchanged;
        // A mesh or a gateway has a 404 of its own.
        let is_problem =
            headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(problem::CONTENT_TYPE.as_bytes()));
        match status {
            StatusCode::OK => Ok(Some(billing::parse::<LedgerId>(&body)?.id)),
            StatusCode::NOT_FOUND if is_problem => Ok(None),
            _ => Err(UnknownResult(format!("billing responded {status}: {}", billing::excerpt(&body)))),
        }
    }
}

fn parse(body: &[u8], login: &Login) -> Result<OpenAccount, UnknownResult> {
    let account: OpenAccount = billing::parse(body)?;
    if account.login != *login {
        return Err(UnknownResult("billing's response is about another account".to_owned()));
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use orders_crds::Money;

    use super::*;

    #[test]
    fn a_response_counts_only_if_it_is_about_this_account() {
        let anna = Login::try_from("anna".to_owned()).unwrap();
        let body = r#"{"login":"anna","balance":9.5,"opened":true}"#;
        assert_eq!(parse(body.as_bytes(), &anna).map(|account| account.balance), Ok(Money::from_minor(950)));
        for wrong in [body.replace("anna", "bert"), body.replace("9.5", "9.555"), String::new()] {
            assert!(parse(wrong.as_bytes(), &anna).is_err(), "{wrong}");
        }
    }
}
