//! A mail server that behaves as some mail servers do, and the inbox does not.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

/// How the server behaves.
#[derive(Clone)]
pub struct Behaviour {
    /// How long the server waits before it greets.
    pub greeting_delay: Duration,
    /// The reply to RCPT.
    pub recipient_reply: &'static str,
    /// The reply to a message.
    pub message_reply: &'static str,
    /// The number of messages on a connection, and the reply to MAIL after them. Without a reply, the server closes the
    /// connection at once.
    pub messages_per_connection: Option<(usize, Option<&'static str>)>,
    /// The command to which the server never replies. A dot stands for the end of a message.
    pub silent_at: Option<&'static str>,
    /// The TLS with which each connection begins.
    pub tls: Option<TlsAcceptor>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            greeting_delay: Duration::ZERO,
            recipient_reply: "250 2.1.5 ok",
            message_reply: "250 2.0.0 ok",
            messages_per_connection: None,
            silent_at: None,
            tls: None,
        }
    }
}

/// A mail server on loopback.
pub struct MailServer {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    /// Each permit lets the server reply once to a command at which it is held.
    permits: Arc<Semaphore>,
    held_at: Arc<Mutex<Option<&'static str>>>,
}

/// What the server has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The number of connections.
    pub connections: usize,
    /// The commands in the order of their arrival, and a dot for the end of each message.
    pub commands: Vec<String>,
    /// The messages, accepted or not.
    pub messages: Vec<String>,
}

impl MailServer {
    pub async fn start(behaviour: Behaviour) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (seen, permits, held_at) = (Arc::default(), Arc::new(Semaphore::new(0)), Arc::default());
        let server = MailServer { port, seen, permits, held_at };
        let handler =
            Handler { behaviour, seen: server.seen.clone(), permits: server.permits.clone(), held_at: server.held_at.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handler = handler.clone();
                tokio::spawn(async move {
                    handler.seen.lock().unwrap().connections += 1;
                    let _ = match handler.behaviour.tls.clone() {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => handler.converse(stream).await,
                            Err(error) => Err(error),
                        },
                        None => handler.converse(stream).await,
                    };
                });
            }
        });
        Ok(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Lets the server wait for [`Self::release`] before it replies to this command.
    pub fn hold_at(&self, command: &'static str) {
        *self.held_at.lock().unwrap() = Some(command);
    }

    /// Lets the server reply to a command at which it is held.
    pub fn release(&self) {
        self.permits.add_permits(1);
    }

    /// The number of commands that begin so, and of ended messages for a dot.
    pub fn count(&self, command: &str) -> usize {
        self.seen().commands.iter().filter(|seen| seen.starts_with(command)).count()
    }
}

#[derive(Clone)]
struct Handler {
    behaviour: Behaviour,
    seen: Arc<Mutex<Seen>>,
    permits: Arc<Semaphore>,
    held_at: Arc<Mutex<Option<&'static str>>>,
}

impl Handler {
    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let Behaviour { greeting_delay, recipient_reply, message_reply, messages_per_connection, .. } = self.behaviour.clone();
        let (mut stream, mut messages, mut body) = (BufStream::new(stream), 0, None::<String>);
        tokio::time::sleep(greeting_delay).await;
        self.reply(&mut stream, "", "220 mail.example.com ESMTP").await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            if let Some(text) = &mut body {
                if line != "." {
                    *text += &(line + "\n");
                    continue;
                }
                messages += 1;
                self.seen.lock().unwrap().messages.extend(body.take());
                self.reply(&mut stream, ".", message_reply).await?;
                continue;
            }
            let command = line.split(' ').next().unwrap_or_default().to_uppercase();
            let reply = match &*command {
                "EHLO" => "250-mail.example.com\r\n250 8BITMIME",
                "MAIL" => match messages_per_connection {
                    Some((limit, reply)) if messages >= limit => {
                        if let Some(reply) = reply {
                            self.reply(&mut stream, &line, reply).await?;
                        }
                        return Ok(());
                    }
                    _ => "250 2.1.0 ok",
                },
                "RCPT" => recipient_reply,
                "DATA" => {
                    body = Some(String::new());
                    "354 go ahead"
                }
                "QUIT" => "221 2.0.0 bye",
                _ => "250 2.0.0 ok",
            };
            self.reply(&mut stream, &line, reply).await?;
            if command == "DATA" && !reply.starts_with('3') {
                body = None;
            }
        }
    }

    /// Replies to a command, unless the server is silent at it.
    async fn reply(&self, stream: &mut (impl AsyncWrite + Unpin), command: &str, reply: &str) -> io::Result<()> {
        if !command.is_empty() {
            self.seen.lock().unwrap().commands.push(command.to_owned());
        }
        let held_at = *self.held_at.lock().unwrap();
        if held_at.is_some_and(|held_at| command.starts_with(held_at)) {
            self.permits.acquire().await.map_err(io::Error::other)?.forget();
        }
        if self.behaviour.silent_at.is_some_and(|silent_at| command.starts_with(silent_at)) && !command.is_empty() {
            return std::future::pending().await;
        }
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        stream.flush().await
    }
}
