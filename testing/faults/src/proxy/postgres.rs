//! The proxy between a service and PostgreSQL. It parses the frontend's messages (protocol
//! version 3.0, PostgreSQL documentation chapter "Frontend/Backend Protocol")
//! as far as necessary to detect when each statement is executed.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::{Interceptor, Interruption, listen};
use crate::{fault::Fault, fault_injector::EffectInProgress};

/// The largest message that is forwarded, in bytes.
const LARGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// Serves on a free port, and returns the port. Connections are forwarded to `upstream` (`host:port`).
///
/// # Errors
/// If no port is available.
pub async fn serve(interceptor: Interceptor, upstream: String) -> Result<u16> {
    listen(move |client| {
        let (interceptor, upstream) = (interceptor.clone(), upstream.clone());
        async move {
            let server = TcpStream::connect(upstream).await?;
            server.set_nodelay(true)?;
            relay(&interceptor, client, server).await
        }
    })
    .await
}

/// A message with its type. The startup message has no type.
struct Message {
    kind: u8,
    bytes: Vec<u8>,
}

async fn relay(interceptor: &Interceptor, client: TcpStream, server: TcpStream) -> Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    relay_startup(&mut from_client, &mut to_client, &mut to_server).await?;
    let (mut from_client, mut from_server) = (read_messages(from_client), read_messages(from_server));
    let (mut statements, mut bound, mut session) = (HashMap::new(), None::<String>, 0);
    let mut pending: Option<(Option<Fault>, EffectInProgress<'_>)> = None;
    loop {
        tokio::select! {
            message = from_client.recv() => {
                let Some(message) = message else { return Ok(()) };
                let executed = match message.kind {
                    b'P' => { let (name, sql) = split_two_texts(&message.bytes[5..])?; statements.insert(name, sql); None }
                    b'B' => {
                        let (_, name) = split_two_texts(&message.bytes[5..])?;
                        bound = statements.get(&name).cloned();
                        None
                    }
                    b'E' => bound.take(),
                    b'Q' => Some(split_text(&message.bytes[5..])?.0),
                    _ => None,
                };
                if let Some(operation) = executed.as_deref().and_then(effect) {
                    let (fault, in_progress) =
                        interceptor.injector.intercept(interceptor.channel, &operation, interceptor.component);
                    interceptor.injector.wait_while_held(interceptor.channel).await;
                    if matches!(interceptor.inject_before(fault).await, Some(Interruption::Disconnect)) {
                        return Ok(());
                    }
                    if let Some(actors) = interceptor.actors.get() {
                        let result = match fault {
                            Some(Fault::TerminateSession) => actors.terminate_session(session),
                            Some(Fault::CrashDatabase) => actors.crash_database(session),
                            _ => Ok(()),
                        };
                        if let Err(error) = result {
                            eprintln!("session {session} was not terminated: {error:#}");
                            interceptor.injector.record_failed_injection();
                        }
                    }
                    pending = Some((fault, in_progress));
                }
                to_server.write_all(&message.bytes).await?;
            }
            message = from_server.recv() => {
                let Some(message) = message else { return Ok(()) };
                match message.kind {
                    b'K' => session = i32::from_be_bytes(message.bytes[5..9].try_into()?),
                    // The statement has finished, successfully or not.
                    b'Z' => if let Some((fault, _in_progress)) = pending.take() && !interceptor.inject_after(fault).await {
                        return Ok(());
                    },
                    _ => {}
                }
                to_client.write_all(&message.bytes).await?;
            }
        }
    }
}

/// Forwards the startup messages, which have no type. Declines encryption.
async fn relay_startup(
    from_client: &mut (impl AsyncRead + Unpin),
    to_client: &mut (impl AsyncWrite + Unpin),
    to_server: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    const SSL_REQUEST: u32 = 80_877_103;
    loop {
        let length = from_client.read_u32().await?;
        let code = from_client.read_u32().await?;
        if code == SSL_REQUEST {
            to_client.write_all(b"N").await?;
            continue;
        }
        let rest = (length as usize).checked_sub(8).context("a start-up message has 8 bytes")?;
        if rest > LARGEST_MESSAGE {
            bail!("a start-up message of {rest} bytes");
        }
        let mut body = vec![0; rest];
        from_client.read_exact(&mut body).await?;
        to_server.write_all(&[&length.to_be_bytes()[..], &code.to_be_bytes(), &body].concat()).await?;
        return Ok(());
    }
}

/// Reads the messages of one side in a separate task from their handling, since reading
/// must not be cancelled in the middle of a message.
fn read_messages(mut stream: impl AsyncRead + Unpin + Send + 'static) -> mpsc::Receiver<Message> {
    let (sender, messages) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok(message) = read(&mut stream).await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    messages
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Message> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let rest = (length as usize).checked_sub(4).context("a message has 4 bytes")?;
    if rest > LARGEST_MESSAGE {
        bail!("a message of {rest} bytes");
    }
    let mut bytes = Vec::with_capacity(rest + 5);
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.resize(rest + 5, 0);
    stream.read_exact(&mut bytes[5..]).await?;
    Ok(Message { kind, bytes })
}

/// Splits off a text that ends with a zero byte. Returns the text and the remaining bytes.
fn split_text(bytes: &[u8]) -> Result<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0).context("a text ends with a zero byte")?;
    Ok((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..]))
}

fn split_two_texts(bytes: &[u8]) -> Result<(String, String)> {
    let (first, rest) = split_text(bytes)?;
    Ok((first, split_text(rest)?.0))
}

/// The operation of a statement that changes data, such as `INSERT INTO postings`; `None` for other statements.
/// Queries for due messages depend on the clock and do not count.
fn effect(sql: &str) -> Option<String> {
    let words: Vec<&str> = sql.split_whitespace().collect();
    match words.as_slice() {
        ["COMMIT", ..] => Some("COMMIT".to_owned()),
        // One statement with several changes, which is a separate transaction.
        ["WITH", name, "AS", ..] => Some(format!("WITH {name}")),
        ["DELETE", "FROM", table, ..] => Some(format!("DELETE FROM {table}")),
        ["INSERT", "INTO", table, ..] => Some(format!("INSERT INTO {table}")),
        ["UPDATE", _, "SET", "next_attempt_at", ..] => None,
        ["UPDATE", table, "SET", column, ..] => Some(format!("UPDATE {table} SET {column}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_named_after_the_statement_and_the_table() {
        assert_eq!(effect("COMMIT").as_deref(), Some("COMMIT"));
        assert_eq!(effect("\n  WITH moved AS (UPDATE accounts").as_deref(), Some("WITH moved"));
        assert_eq!(effect("INSERT INTO postings (a)\n VALUES ($1)").as_deref(), Some("INSERT INTO postings"));
        assert_eq!(effect("UPDATE messages SET sent_at = $2").as_deref(), Some("UPDATE messages SET sent_at"));
        assert_eq!(effect("UPDATE messages SET next_attempt_at = $2\n WHERE"), None);
        assert_eq!(effect("SELECT 1"), None);
    }
}
