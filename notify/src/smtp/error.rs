//! The reasons why the mail server did not accept a message.

use std::time::Duration;

use lettre::transport::smtp::Error;

/// A phase of an SMTP conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Phase {
    /// The connection is opened.
    #[strum(serialize = "connection")]
    Connect,
    /// The server greets, and replies to EHLO.
    #[strum(serialize = "greeting")]
    Greeting,
    /// STARTTLS.
    #[strum(serialize = "STARTTLS")]
    StartTls,
    /// AUTH.
    #[strum(serialize = "AUTH")]
    Auth,
    /// MAIL: the sender.
    #[strum(serialize = "MAIL")]
    Sender,
    /// RCPT: the recipient.
    #[strum(serialize = "RCPT")]
    Recipient,
    /// DATA: the server gets ready for the message.
    #[strum(serialize = "DATA")]
    Data,
    /// The message is transferred, and the server replies whether it accepts the message.
    #[strum(serialize = "message")]
    Transfer,
}

/// The reason why the mail server did not accept a message.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The TCP connection to the server failed.
    #[error("cannot connect to the mail server: {0}")]
    Connect(#[from] std::io::Error),
    /// The server did not reply within the time limit.
    #[error("{phase}: no reply from the mail server within {} s", limit.as_secs())]
    Timeout {
        /// The phase in which the server did not reply.
        phase: Phase,
        /// The limit of this phase.
        limit: Duration,
    },
    /// The server refused the message, or the conversation broke off.
    #[error("{phase}: {}", with_cause(source))]
    Smtp {
        /// The phase in which this happened.
        phase: Phase,
        /// The reply, or the failure.
        source: Error,
    },
    /// Encryption is required, and the server does not offer it.
    #[error("the mail server does not offer STARTTLS")]
    NoEncryption,
    /// The address has non-ASCII characters before the @, and the server does not offer SMTPUTF8 (RFC 6531).
    #[error("the mail server does not offer SMTPUTF8, which this address requires")]
    NoUtf8,
    /// The caller no longer holds the lease on the message, so the message was not transferred.
    #[error("the lease on the message expired before the message was transferred")]
    LeaseExpired,
}

impl SmtpError {
    /// Whether another attempt would fail as well: the address does not exist. Enhanced status codes
    /// (RFC 3463, 3.2) tell this from a policy, a full mailbox or a fault of the sender.
    pub fn is_final(&self) -> bool {
        let SmtpError::Smtp { phase: Phase::Recipient | Phase::Data | Phase::Transfer, source } = self else { return false };
        let text = std::error::Error::source(source).map(ToString::to_string).unwrap_or_default();
        // Bad mailbox, bad domain, bad syntax, moved without a forwarding address, a domain without mail (RFC 7505).
        source.is_permanent() && matches!(enhanced_code(&text), Some("5.1.1" | "5.1.2" | "5.1.3" | "5.1.6" | "5.1.10"))
    }

    /// Whether the server ended the connection before it could accept the message. 421 means that it
    /// ends the connection (RFC 5321, 3.8).
    pub(super) fn is_connection_ended(&self) -> bool {
        match self {
            SmtpError::Smtp { phase, source } => match source.status() {
                Some(code) => u16::from(code) == 421,
                None => *phase != Phase::Transfer && !source.is_client(),
            },
            SmtpError::Connect(_)
            | SmtpError::Timeout { .. }
            | SmtpError::NoEncryption
            | SmtpError::NoUtf8
            | SmtpError::LeaseExpired => false,
        }
    }
}

/// The enhanced status code (RFC 2034) with which a reply begins.
fn enhanced_code(reply: &str) -> Option<&str> {
    let code = reply.split_whitespace().next()?;
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (code.split('.').count() == 3 && code.split('.').all(is_number)).then_some(code)
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enhanced_code_is_the_first_word_of_the_reply() {
        assert_eq!(enhanced_code("5.1.1 no such user 4.2.2"), Some("5.1.1"));
        assert_eq!(enhanced_code("5.1.10 null MX"), Some("5.1.10"));
        for reply in ["", "no such user", "5.1 x", "5.1.1.1 x", "5.1.1000 x", "5..1 x", "v5.1.1"] {
            assert_eq!(enhanced_code(reply), None, "{reply}");
        }
    }
}
