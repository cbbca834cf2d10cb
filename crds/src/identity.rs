//! The login and the e-mail address of a customer, as types that hold only valid values.

use std::{fmt, sync::LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

/// The shape of a login. The CRD carries the same pattern.
pub const LOGIN_PATTERN: &str = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$";

/// The shape of an e-mail address: the dot-atom form of RFC 5322 with a
/// domain of at least two labels. The CRD carries the same pattern.
pub const EMAIL_PATTERN: &str = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$";

/// The longest e-mail address, in bytes (RFC 5321, 4.5.3.1.3, without the angle brackets).
pub const EMAIL_MAX: usize = 254;

static LOGIN: LazyLock<Regex> = LazyLock::new(|| Regex::new(LOGIN_PATTERN).expect("a constant"));
static EMAIL: LazyLock<Regex> = LazyLock::new(|| Regex::new(EMAIL_PATTERN).expect("a constant"));

/// Why a text is not a [`Login`] or not an [`EMail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text is not a login.
    #[error(
        "must be 1 to 64 letters, digits, '.', '_', '@', '+' or '-', and start with a letter or digit (in the query of a URL, '+' is written %2B)"
    )]
    Login,
    /// The text is not an e-mail address.
    #[error("must be an e-mail address such as name@example.com, of at most 254 characters")]
    EMail,
}

/// The login of a billing account, checked against [`LOGIN_PATTERN`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Login(String);

/// An e-mail address, checked against [`EMAIL_PATTERN`]. An international domain is converted to its ASCII
/// form (RFC 5891, 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EMail(String);

impl TryFrom<String> for Login {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        if LOGIN.is_match(&text) { Ok(Login(text)) } else { Err(IdentityError::Login) }
    }
}

impl TryFrom<String> for EMail {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        let text = with_ascii_domain(text);
        let is_local_part_short = text.split('@').next().is_some_and(|local| local.len() <= 64);
        if text.len() <= EMAIL_MAX && is_local_part_short && EMAIL.is_match(&text) {
            Ok(EMail(text))
        } else {
            Err(IdentityError::EMail)
        }
    }
}

fn with_ascii_domain(address: String) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) if !domain.is_ascii() => match idna::domain_to_ascii_strict(domain) {
            Ok(domain) => format!("{local}@{domain}"),
            Err(_) => address,
        },
        _ => address,
    }
}

impl From<Login> for String {
    fn from(login: Login) -> String {
        login.0
    }
}

impl From<EMail> for String {
    fn from(email: EMail) -> String {
        email.0
    }
}

impl AsRef<str> for Login {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for EMail {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_ordinary_logins_and_addresses() {
        for login in ["Aurore56", "Gage_Lind", "a", "o.brien-7", "me@example.com", "me+shop@example.com"] {
            assert!(Login::try_from(login.to_owned()).is_ok(), "{login}");
        }
        for email in ["Gage_Lind@gmail.com", "a+b@x.example", "o'brien@mail.co.uk"] {
            assert!(EMail::try_from(email.to_owned()).is_ok(), "{email}");
        }
    }

    #[test]
    fn an_international_domain_is_stored_in_ascii() {
        for (text, stored) in [
            ("ivan@пример.рф", "ivan@xn--e1afmkfd.xn--p1ai"),
            ("ivan@Пример.РФ", "ivan@xn--e1afmkfd.xn--p1ai"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
        ] {
            assert_eq!(EMail::try_from(text.to_owned()).map(String::from), Ok(stored.to_owned()), "{text}");
        }
        for text in ["иван@пример.рф", "ivan@пример", "ivan@при мер.рф", "ivan@пример.рф\r\nBcc: a@b.cd", "ivan@.рф"]
        {
            assert!(EMail::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_text_that_could_break_a_header_a_path_or_a_mail() {
        let long = "a".repeat(65);
        for login in ["", "-a", "a b", "a\nb", "a\r\nBcc: x", "a/b", "логин", "a\n", long.as_str()] {
            assert!(Login::try_from(login.to_owned()).is_err(), "{login:?}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for email in
            ["", "a", "a@b", "@b.c", "a@b.", "a..b@c.de", "a@b.c\r\nBcc: d@e.f", "a b@c.de", "a@-b.de", "a@b.c\n", long.as_str()]
        {
            assert!(EMail::try_from(email.to_owned()).is_err(), "{email:?}");
        }
    }
}
