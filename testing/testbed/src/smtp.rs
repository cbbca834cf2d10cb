//! The implementation of `orders-inbox`: a server that accepts messages over SMTP and serves them as
//! JSON and as a web page.
//!
//! The crate `mailin` implements the protocol. Existing servers do not fit: `mailtutan` joins
//! two messages of one connection and panics on a sender without a name, and `mailcrab` would add a
//! second TLS provider to the workspace.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use mail_parser::MessageParser;
use mailin::{Action, AuthMechanism, Session, SessionBuilder, response};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::inbox::Message;

/// The largest message that is accepted, in bytes.
const LARGEST_MESSAGE: usize = 10 * 1024 * 1024;

/// The messages, oldest first.
#[derive(Debug)]
struct Store {
    messages: VecDeque<Message>,
    last_id: u64,
    limit: usize,
}

/// The credentials with which a client must log in.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

impl std::str::FromStr for Credentials {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (user, password) = text.split_once(':').context("expected USER:PASSWORD")?;
        Ok(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

type Shared = Arc<Mutex<Store>>;

/// Listens on this address. `::` stands for those of IPv4, too, and only for them on a machine without IPv6.
async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await,
        bound => bound,
    };
    bound.with_context(|| format!("cannot listen on {address}"))
}

/// Accepts mail at `smtp` and serves the inbox at `http`, until one of the two servers fails.
/// Keeps the last `limit` messages.
///
/// # Errors
/// If a port is in use.
pub async fn serve(smtp: SocketAddr, http: SocketAddr, limit: usize, credentials: Option<Credentials>) -> Result<()> {
    let store = Arc::new(Mutex::new(Store { messages: VecDeque::new(), last_id: 0, limit }));
    let smtp_listener = bind(smtp).await?;
    let http_listener = bind(http).await?;
    println!("SMTP on {smtp}, the inbox on http://{http}");
    let http = axum::serve(http_listener, router(store.clone()));
    tokio::select! {
        result = accept(smtp_listener, store, credentials) => result,
        result = http.into_future() => Ok(result?),
    }
}

async fn accept(listener: TcpListener, store: Shared, credentials: Option<Credentials>) -> Result<()> {
    let mut sessions = SessionBuilder::new("inbox");
    if credentials.is_some() {
        // From here on, mailin accepts no mail from clients that did not log in.
        sessions.enable_auth(AuthMechanism::Plain);
        sessions.enable_auth(AuthMechanism::Login);
        sessions.insecure_enable_plaintext_auth();
    }
    loop {
        let (stream, peer) = listener.accept().await?;
        let session = sessions.build(peer.ip(), Envelope::new(store.clone(), credentials.clone()));
        tokio::spawn(async move {
            if let Err(error) = serve_connection(stream, session).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

async fn serve_connection(stream: TcpStream, mut session: Session<Envelope>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(&session.greeting().buffer()?).await?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        let response = session.process(&line);
        line.clear();
        match response.action {
            Action::NoReply => {}
            Action::Reply => stream.write_all(&response.buffer()?).await?,
            Action::Close | Action::UpgradeTls => {
                stream.write_all(&response.buffer()?).await?;
                return stream.shutdown().await;
            }
        }
    }
    Ok(())
}

/// A message that is being received.
struct Envelope {
    store: Shared,
    credentials: Option<Credentials>,
    recipients: Vec<String>,
    data: Vec<u8>,
}

impl Envelope {
    fn new(store: Shared, credentials: Option<Credentials>) -> Self {
        Self { store, credentials, recipients: Vec::new(), data: Vec::new() }
    }

    fn log_in(&self, user: &str, password: &str) -> mailin::Response {
        match &self.credentials {
            Some(expected) if expected.user == user && expected.password == password => response::AUTH_OK,
            _ => response::INVALID_CREDENTIALS,
        }
    }
}

impl mailin::Handler for Envelope {
    fn mail(&mut self, _: IpAddr, _: &str, _: &str) -> mailin::Response {
        self.recipients.clear();
        self.data.clear();
        response::OK
    }

    fn rcpt(&mut self, to: &str) -> mailin::Response {
        self.recipients.push(to.to_owned());
        response::OK
    }

    fn data(&mut self, part: &[u8]) -> std::io::Result<()> {
        if self.data.len() + part.len() > LARGEST_MESSAGE {
            return Err(std::io::Error::other("message too large"));
        }
        self.data.extend_from_slice(part);
        Ok(())
    }

    fn data_end(&mut self) -> mailin::Response {
        let message = parse(&std::mem::take(&mut self.data), std::mem::take(&mut self.recipients));
        println!("{} to {}: {}", message.message_id, message.to.join(", "), message.subject);
        lock(&self.store).add(message);
        response::OK
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> mailin::Response {
        self.log_in(user, password)
    }

    fn auth_login(&mut self, user: &str, password: &str) -> mailin::Response {
        self.log_in(user, password)
    }
}

fn parse(data: &[u8], to: Vec<String>) -> Message {
    let raw = String::from_utf8_lossy(data).into_owned();
    let Some(parsed) = MessageParser::default().parse(data) else {
        return Message { to, raw, ..Message::default() };
    };
    let from = parsed.from().and_then(|from| from.first()).and_then(|from| from.address());
    Message {
        id: 0,
        received_at: 0,
        message_id: parsed.message_id().unwrap_or_default().to_owned(),
        from: from.unwrap_or_default().to_owned(),
        to,
        subject: parsed.subject().unwrap_or_default().to_owned(),
        text: parsed.body_text(0).unwrap_or_default().into_owned(),
        raw,
    }
}

impl Store {
    fn add(&mut self, message: Message) {
        self.last_id += 1;
        let received_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        self.messages.push_back(Message { id: self.last_id, received_at, ..message });
        if self.messages.len() > self.limit {
            self.messages.pop_front();
        }
    }
}

fn lock(store: &Shared) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn router(store: Shared) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("inbox.html")) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/api/messages", get(list).delete(clear))
        .route("/api/messages/{id}", get(show))
        .route("/api/messages/{id}/source", get(source))
        .with_state(store)
}

async fn list(State(store): State<Shared>) -> Json<Vec<Message>> {
    Json(lock(&store).messages.iter().cloned().collect())
}

async fn clear(State(store): State<Shared>) -> StatusCode {
    lock(&store).messages.clear();
    StatusCode::NO_CONTENT
}

async fn show(State(store): State<Shared>, Path(id): Path<u64>) -> Result<Json<Message>, StatusCode> {
    find(&store, id).map(Json)
}

async fn source(State(store): State<Shared>, Path(id): Path<u64>) -> Result<String, StatusCode> {
    find(&store, id).map(|message| message.raw)
}

fn find(store: &Shared, id: u64) -> Result<Message, StatusCode> {
    let store = lock(store);
    store.messages.iter().find(|message| message.id == id).cloned().ok_or(StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_decoded() {
        let data = b"From: orders@arch.homework\r\nTo: a@example.com\r\nMessage-ID: <1@arch.homework>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe, 5.00\r\n";
        let message = parse(data, vec!["a@example.com".to_owned()]);
        assert_eq!(message.from, "orders@arch.homework");
        assert_eq!(message.message_id, "1@arch.homework");
        assert_eq!(message.subject, "Grüße");
        assert_eq!(message.text, "Grüße, 5.00\r\n");
        assert_eq!(message.raw.as_bytes(), data);
    }

    #[test]
    fn the_oldest_message_is_dropped() {
        let mut store = Store { messages: VecDeque::new(), last_id: 0, limit: 2 };
        for _ in 0..3 {
            store.add(Message::default());
        }
        assert_eq!(store.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [2, 3]);
    }
}
