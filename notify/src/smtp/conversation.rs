//! One connection to the mail server, and the phases of the conversation on it, each with its own time
//! limit.

use std::time::Duration;

use lettre::{
    Message,
    transport::smtp::{
        Error,
        authentication::DEFAULT_MECHANISMS,
        client::AsyncSmtpConnection,
        commands::{Data, Mail, Noop, Quit, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    error::{Phase, SmtpError},
    server::{Encryption, Server},
    timeouts::SmtpTimeouts,
};

/// How long the server may take to reply to a NOOP or a QUIT.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The first and the further TCP keepalive probes on a connection: a server whose network vanished is noticed within
/// a minute, also while it may take ten minutes to reply.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A connection at the beginning of a conversation.
pub(super) struct Conversation {
    connection: AsyncSmtpConnection,
    timeouts: SmtpTimeouts,
}

impl Conversation {
    /// Opens a connection, and encrypts and authenticates it.
    pub(super) async fn open(server: &Server, name: &ClientId, timeouts: SmtpTimeouts) -> Result<Self, SmtpError> {
        let address = (&*server.host, server.port);
        let connection = match &server.encryption {
            Encryption::Implicit(parameters) => {
                let connecting = AsyncSmtpConnection::connect_tokio1(address, None, name, Some(parameters.clone()), None);
                within(Phase::Greeting, timeouts.connect + timeouts.greeting, connecting).await?
            }
            Encryption::Never | Encryption::IfOffered(_) | Encryption::Required(_) => {
                let stream = match timeout(timeouts.connect, TcpStream::connect(address)).await {
                    Ok(stream) => stream?,
                    Err(_) => return Err(SmtpError::Timeout { phase: Phase::Connect, limit: timeouts.connect }),
                };
                // Nagle's algorithm delays the end of each message until the server's delayed
                // acknowledgement, about 40 ms.
                stream.set_nodelay(true)?;
                let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1);
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                let greeting = AsyncSmtpConnection::connect_with_transport(Box::new(stream), name);
                within(Phase::Greeting, timeouts.greeting, greeting).await?
            }
        };
        let mut conversation = Conversation { connection, timeouts };
        conversation.encrypt(&server.encryption, name).await?;
        if let Some(credentials) = &server.credentials {
            let authenticating = conversation.connection.auth(DEFAULT_MECHANISMS, credentials);
            within(Phase::Auth, timeouts.command, authenticating).await?;
        }
        Ok(conversation)
    }

    async fn encrypt(&mut self, encryption: &Encryption, name: &ClientId) -> Result<(), SmtpError> {
        let parameters = match encryption {
            Encryption::Never | Encryption::Implicit(_) => return Ok(()),
            Encryption::Required(_) if !self.connection.can_starttls() => return Err(SmtpError::NoEncryption),
            Encryption::IfOffered(_) if !self.connection.can_starttls() => return Ok(()),
            Encryption::Required(parameters) | Encryption::IfOffered(parameters) => parameters.clone(),
        };
        within(Phase::StartTls, self.timeouts.command, self.connection.starttls(parameters, name)).await
    }

    /// Sends a message, if `begin_transfer` allows it once the server is ready for the message. After
    /// success, the connection is at the beginning of a conversation again.
    pub(super) async fn send(&mut self, message: &Message, begin_transfer: impl FnOnce() -> bool) -> Result<(), SmtpError> {
        let (envelope, SmtpTimeouts { command, data, transfer, .. }) = (message.envelope(), self.timeouts);
        let mut parameters = Vec::new();
        let mut addresses = envelope.from().into_iter().chain(envelope.to());
        if addresses.any(|address| !(address.user().is_ascii() && address.domain().is_ascii())) {
            if !self.connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(SmtpError::NoUtf8);
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let sender = Mail::new(envelope.from().cloned(), parameters);
        within(Phase::Sender, command, self.connection.command(sender)).await?;
        for address in envelope.to() {
            let recipient = Rcpt::new(address.clone(), Vec::new());
            within(Phase::Recipient, command, self.connection.command(recipient)).await?;
        }
        within(Phase::Data, data, self.connection.command(Data)).await?;
        if !begin_transfer() {
            return Err(SmtpError::LeaseExpired);
        }
        within(Phase::Transfer, transfer, self.connection.message(&message.formatted())).await?;
        Ok(())
    }

    /// Whether the server still replies.
    pub(super) async fn is_alive(&mut self) -> bool {
        timeout(SHORT_TIMEOUT, self.connection.command(Noop)).await.is_ok_and(|reply| reply.is_ok())
    }

    /// Ends the conversation, and closes the connection.
    pub(super) async fn quit(mut self) {
        let _ = timeout(SHORT_TIMEOUT, self.connection.command(Quit)).await;
    }
}

/// Waits for a phase to end, at most for its time limit.
async fn within<T>(phase: Phase, limit: Duration, replying: impl Future<Output = Result<T, Error>>) -> Result<T, SmtpError> {
    match timeout(limit, replying).await {
        Ok(reply) => reply.map_err(|source| SmtpError::Smtp { phase, source }),
        Err(_) => Err(SmtpError::Timeout { phase, limit }),
    }
}
