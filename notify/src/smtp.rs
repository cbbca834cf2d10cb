//! A pool of connections to one mail server. A connection returns to the pool only after a complete
//! SMTP conversation.
//!
//! The mail library's own pool also reuses a connection whose message was cancelled in the middle
//! of the conversation. The next message then hangs, or reads the reply to the previous message as
//! its own reply. That pool also leaves Nagle's algorithm enabled. Nagle's algorithm delays the end
//! of each message until the server's delayed acknowledgement, about 40 ms.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lettre::{
    Message,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use url::Url;

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The idle time after which a connection is checked with NOOP before its next use. The check costs
/// a round trip. A connection that was used more recently is assumed to work. If it does not work,
/// the message is tried again, as after any broken connection.
const CHECK_AFTER: Duration = Duration::from_secs(1);

/// The maximum time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A mail server, and the idle connections to it.
#[derive(Clone)]
pub struct MailServer {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    idle: Arc<Mutex<Vec<IdleConnection>>>,
}

/// The encryption of a connection.
#[derive(Clone)]
enum Encryption {
    Never,
    /// STARTTLS (RFC 3207), if the server offers it.
    IfOffered(TlsParameters),
    /// STARTTLS. Without it, no message is sent.
    Required(TlsParameters),
    /// TLS from the first byte (RFC 8314).
    Implicit(TlsParameters),
}

struct IdleConnection {
    connection: AsyncSmtpConnection,
    since: Instant,
}

/// The reason why the mail server did not accept a message.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The connection to the server failed.
    #[error("cannot connect to the mail server: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection to the server timed out.
    #[error("cannot connect to the mail server in time")]
    ConnectTimeout,
    /// The server refused the message, or the conversation broke off.
    #[error("{}", with_cause(.0))]
    Smtp(#[from] Error),
    /// Encryption is required, and the server does not offer it.
    #[error("the mail server does not offer STARTTLS")]
    NoEncryption,
}

impl MailServer {
    /// Creates a pool for the server at this URL:
    /// `smtp://[USER:PASSWORD@]HOST[:PORT][?tls=required|opportunistic]` or `smtps://…`. The
    /// default port is 25, with `tls` 587, and for `smtps` 465.
    ///
    /// # Errors
    /// Fails if the URL has another form. The error message does not contain the URL, because the
    /// URL may contain a password.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url)?;
        let host = url.host_str().context("the host is missing")?.to_owned();
        let parameters = || TlsParameters::new(host.trim_matches(['[', ']']).to_owned());
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        ensure!(matches!(url.scheme(), "smtp" | "smtps"), "the scheme is neither smtp nor smtps");
        let (port, encryption) = match (url.scheme(), tls.as_deref()) {
            ("smtps", _) => (465, Encryption::Implicit(parameters()?)),
            (_, None) => (25, Encryption::Never),
            (_, Some("required")) => (587, Encryption::Required(parameters()?)),
            (_, Some("opportunistic")) => (587, Encryption::IfOffered(parameters()?)),
            (_, Some(_)) => anyhow::bail!("tls is neither required nor opportunistic"),
        };
        let decoded = |text| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        Ok(MailServer { port: url.port().unwrap_or(port), host, encryption, credentials, idle: Arc::default() })
    }

    /// Sends a message. If the caller drops this future before it completes, the connection is
    /// dropped as well.
    ///
    /// # Errors
    /// [`SmtpError`]. If the conversation broke off at its end, the server may have accepted the
    /// message.
    pub async fn send(&self, message: &Message) -> Result<(), SmtpError> {
        let mut connection = match self.take_idle_connection().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.send(message.envelope(), &message.formatted()).await?;
        // Return the connection to the pool only now: each connection in the pool must be at the
        // beginning of a conversation.
        self.lock_idle().push(IdleConnection { connection, since: Instant::now() });
        Ok(())
    }

    /// Takes an idle connection that still works from the pool.
    async fn take_idle_connection(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let IdleConnection { mut connection, since } = {
                let mut idle = self.lock_idle();
                idle.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT);
                idle.pop()?
            };
            if since.elapsed() < CHECK_AFTER || connection.test_connected().await {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.open_connection());
        connecting.await.map_err(|_| SmtpError::ConnectTimeout)?
    }

    async fn open_connection(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let (name, address) = (ClientId::default(), (self.host.trim_matches(['[', ']']), self.port));
        let mut connection = match &self.encryption {
            Encryption::Implicit(parameters) => {
                AsyncSmtpConnection::connect_tokio1(address, None, &name, Some(parameters.clone()), None).await?
            }
            Encryption::Never | Encryption::IfOffered(_) | Encryption::Required(_) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &name).await?
            }
        };
        match &self.encryption {
            Encryption::Required(_) if !connection.can_starttls() => return Err(SmtpError::NoEncryption),
            Encryption::Required(parameters) => connection.starttls(parameters.clone(), &name).await?,
            Encryption::IfOffered(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), &name).await?;
            }
            Encryption::IfOffered(_) | Encryption::Never | Encryption::Implicit(_) => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    fn urls_have_the_usual_ports() {
        let port = |url: &str| MailServer::new(url).map(|server| server.port).ok();
        assert_eq!(port("smtp://mail.example.com"), Some(25));
        assert_eq!(port("smtp://user:p%40ss@mail.example.com?tls=required"), Some(587));
        assert_eq!(port("smtps://mail.example.com"), Some(465));
        assert_eq!(port("smtp://10.0.0.1:2525?tls=opportunistic"), Some(2525));
        for url in ["http://mail.example.com", "smtp://mail?tls=maybe", "mail.example.com", "smtp:///"] {
            assert_eq!(port(url), None, "{url}");
        }
    }
}
