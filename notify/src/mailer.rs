//! Builds the e-mail for a message and sends it over SMTP.

use std::time::Duration;

use anyhow::Context;
use lettre::{
    Address,
    message::{Mailbox, header::ContentType},
};

use crate::{
    message::Message,
    smtp::{MailServer, SmtpError},
};

/// How long a whole SMTP conversation may take.
pub const SMTP_TIMEOUT: Duration = Duration::from_secs(10);

const SUBJECT: &str = "Ваш заказ";

/// Sends messages to one mail server.
#[derive(Clone)]
pub struct Mailer {
    server: MailServer,
    from: Address,
}

/// The reason why the mail server did not accept a message.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The mail library does not accept the address.
    #[error("address: {0}")]
    Address(#[from] lettre::address::AddressError),
    /// The e-mail cannot be built.
    #[error("message: {0}")]
    Message(#[from] lettre::error::Error),
    /// The server refused the message, or the connection to the server failed.
    #[error(transparent)]
    Smtp(#[from] SmtpError),
    /// The whole conversation took too long.
    #[error("the mail server did not finish in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

impl Mailer {
    /// Creates a mailer for this server and sender.
    ///
    /// # Errors
    /// Fails if the URL or the sender's address cannot be parsed. The error message does not
    /// contain the URL, because the URL may contain a password.
    pub fn new(smtp_url: &str, from: &str) -> anyhow::Result<Self> {
        let from = from.parse().with_context(|| format!("MAIL_FROM={from} is not an address"))?;
        let server = MailServer::new(smtp_url)
            .context("SMTP_URL is invalid; its form is smtp://host:port or smtps://user:password@host")?;
        Ok(Mailer { server, from })
    }

    /// Sends a message. The message may arrive more than once, because SMTP cannot guarantee a
    /// single delivery. Each copy has the same Message-ID (RFC 5322, 3.6.4).
    ///
    /// # Errors
    /// [`MailError`]. After a broken connection, the server may have accepted the message.
    pub async fn send(&self, message: &Message) -> Result<(), MailError> {
        let id = format!("<{}@{}>", message.key, self.from.domain());
        let email = lettre::Message::builder()
            .message_id(Some(id))
            .from(Mailbox::new(None, self.from.clone()))
            // There is no display name, because it would put user input into a header.
            .to(Mailbox::new(None, message.email.parse()?))
            .subject(SUBJECT)
            .header(ContentType::TEXT_PLAIN)
            .body(message.text.clone())?;
        tokio::time::timeout(SMTP_TIMEOUT, self.server.send(&email)).await??;
        Ok(())
    }
}
