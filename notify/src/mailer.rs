//! One message over SMTP.

use std::time::Duration;

use anyhow::Context;
use lettre::{
    Address,
    message::{Mailbox, header::ContentType},
};

use crate::{
    log::Message,
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

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The address is none, for this mail library.
    #[error("address: {0}")]
    Address(#[from] lettre::address::AddressError),
    /// The message cannot be put together.
    #[error("message: {0}")]
    Message(#[from] lettre::error::Error),
    /// The server refused it, or was not reached.
    #[error(transparent)]
    Smtp(#[from] SmtpError),
    /// The whole conversation took too long.
    #[error("the mail server did not finish in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

impl Mailer {
    /// A mailer for this server and sender.
    ///
    /// # Errors
    /// If the URL or the sender's address cannot be read. The message does not
    /// show the URL, which may hold a password.
    pub fn new(smtp_url: &str, from: &str) -> anyhow::Result<Self> {
        let from = from.parse().with_context(|| format!("MAIL_FROM={from} is not an address"))?;
        let server = MailServer::new(smtp_url)
            .context("SMTP_URL cannot be read; it looks like smtp://host:port or smtps://user:password@host")?;
        Ok(Mailer { server, from })
    }

    /// Has the server accept the message. It may arrive more than once (SMTP
    /// cannot do better), always with the same Message-ID (RFC 5322, 3.6.4).
    ///
    /// # Errors
    /// [`MailError`]; after a broken connection the message may have been accepted.
    pub async fn send(&self, message: &Message) -> Result<(), MailError> {
        let id = format!("<{}@{}>", message.key, self.from.domain());
        let email = lettre::Message::builder()
            .message_id(Some(id))
            .from(Mailbox::new(None, self.from.clone()))
            // No display name: it would have to be user text in a header.
            .to(Mailbox::new(None, message.email.parse()?))
            .subject(SUBJECT)
            .header(ContentType::TEXT_PLAIN)
            .body(message.text.clone())?;
        tokio::time::timeout(SMTP_TIMEOUT, self.server.send(&email)).await??;
        Ok(())
    }
}
