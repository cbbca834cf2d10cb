//! A pool of connections to one mail server. A connection returns to the pool only after a complete
//! SMTP conversation.
//!
//! The mail library's own pool also reuses a connection whose message was cancelled in the middle
//! of the conversation. The next message then hangs, or reads the reply to the previous message as
//! its own reply. That pool also has one time limit for all phases of a conversation.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use lettre::{Message, transport::smtp::extension::ClientId};

use super::{conversation::Conversation, error::SmtpError, server::Server, timeouts::SmtpTimeouts};

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The idle time after which a connection is checked with NOOP before its next use. The check costs
/// a round trip. A connection that was used more recently is assumed to work.
const CHECK_AFTER: Duration = Duration::from_secs(1);

/// A mail server, and the idle connections to it.
#[derive(Clone)]
pub struct MailServer {
    server: Server,
    /// The name with which EHLO introduces this client.
    name: ClientId,
    timeouts: SmtpTimeouts,
    idle: Arc<Mutex<Vec<IdleConnection>>>,
}

struct IdleConnection {
    conversation: Conversation,
    since: Instant,
}

impl MailServer {
    /// Creates a pool for the server at this URL:
    /// `smtp://[USER:PASSWORD@]HOST[:PORT][?tls=required|opportunistic]` or `smtps://…`. The
    /// default port is 25, with `tls` 587, and for `smtps` 465. The certificate authorities in `ca_file`
    /// (PEM) are trusted in addition to the public ones. `name` introduces this client to the server.
    ///
    /// # Errors
    /// Fails if the URL has another form, or the file cannot be read. The error message does not
    /// contain the URL, because the URL may contain a password.
    pub fn new(url: &str, ca_file: Option<&Path>, name: String, timeouts: SmtpTimeouts) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("SMTP_CA_FILE={} cannot be read", path.display()));
        let server = Server::parse(url, ca_file.map(read).transpose()?.as_deref())?;
        Ok(MailServer { server, name: ClientId::Domain(name), timeouts, idle: Arc::default() })
    }

    /// Sends a message. `begin_transfer` is called once the server is ready for the message. If it
    /// returns `false`, the message is not sent. If the caller drops this future before it completes, the
    /// connection is dropped as well.
    ///
    /// # Errors
    /// [`SmtpError`]. If the conversation broke off at its end, the server may have accepted the
    /// message.
    pub async fn send(&self, message: &Message, begin_transfer: impl Fn() -> bool) -> Result<(), SmtpError> {
        if let Some(conversation) = self.take_idle_connection().await {
            match self.converse(conversation, message, &begin_transfer).await {
                // A server may end a connection after some messages or some time. This is no failure of
                // the message.
                Err(error) if error.is_connection_ended() => tracing::debug!(%error, "the mail server ended a connection"),
                result => return result,
            }
        }
        let conversation = Conversation::open(&self.server, &self.name, self.timeouts).await?;
        self.converse(conversation, message, begin_transfer).await
    }

    async fn converse(
        &self,
        mut conversation: Conversation,
        message: &Message,
        begin_transfer: impl FnOnce() -> bool,
    ) -> Result<(), SmtpError> {
        let sent = conversation.send(message, begin_transfer).await;
        match &sent {
            // Each connection in the pool must be at the beginning of a conversation.
            Ok(()) => self.lock_idle().push(IdleConnection { conversation, since: Instant::now() }),
            Err(SmtpError::Smtp { source, .. }) if source.status().is_some() => drop(tokio::spawn(conversation.quit())),
            // The conversation broke off in the middle: only the end of the connection ends it.
            Err(_) => {}
        }
        sent
    }

    /// Takes an idle connection that still works from the pool.
    async fn take_idle_connection(&self) -> Option<Conversation> {
        loop {
            let IdleConnection { mut conversation, since } = {
                let mut idle = self.lock_idle();
                idle.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT);
                idle.pop()?
            };
            if since.elapsed() < CHECK_AFTER || conversation.is_alive().await {
                return Some(conversation);
            }
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
