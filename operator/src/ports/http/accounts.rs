//! Billing's accounts, over HTTP in every style of interaction: the styles are
//! about orders, and an account is opened once.

use orders_contracts::{IDEMPOTENCY_KEY, billing::OpenAccount};
use orders_crds::Login;
use orders_service::{http_client::Peer, token_file::TokenFile};
use reqwest::Method;

use super::billing;
use crate::ports::NoAnswer;

/// Billing's accounts.
#[derive(Clone, Debug)]
pub struct Accounts(Peer);

impl Accounts {
    /// The service at this URL, shown this token.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(url: &str, token: TokenFile) -> Result<Self, reqwest::Error> {
        billing::peer(url, token).map(Accounts)
    }

    /// Opens an account with this login unless there is one, for the customer with this UID.
    ///
    /// # Errors
    /// [`NoAnswer`], after which it is unknown whether there is one.
    pub async fn open(&self, login: &Login, uid: &str) -> Result<OpenAccount, NoAnswer> {
        // A login is safe in a path as it is.
        let request = self.0.request(Method::PUT, &format!("/billing/account/{login}")).header(IDEMPOTENCY_KEY, uid);
        read(&billing::ask(&self.0, request).await?, login)
    }
}

fn read(body: &[u8], login: &Login) -> Result<OpenAccount, NoAnswer> {
    let account: OpenAccount = billing::read(body)?;
    if account.login == *login { Ok(account) } else { Err(NoAnswer("billing's answer is about another account".to_owned())) }
}

#[cfg(test)]
mod tests {
    use orders_crds::Money;

    use super::*;

    #[test]
    fn an_answer_counts_only_if_it_is_about_this_account() {
        let anna = Login::try_from("anna".to_owned()).unwrap();
        let body = r#"{"login":"anna","balance":9.5,"opened":true}"#;
        assert_eq!(read(body.as_bytes(), &anna).map(|account| account.balance), Ok(Money::from_minor(950)));
        for wrong in [body.replace("anna", "bert"), body.replace("9.5", "9.555"), String::new()] {
            assert!(read(wrong.as_bytes(), &anna).is_err(), "{wrong}");
        }
    }
}
