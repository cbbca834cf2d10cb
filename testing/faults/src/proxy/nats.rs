//! The proxy between a service and the broker. It parses the client protocol of NATS (the
//! chapter "Client Protocol" of its documentation) as far as necessary to detect when
//! messages are published and acknowledged.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{Interceptor, Interruption, listen};
use crate::{fault::Fault, fault_injector::EffectInProgress};

/// The largest message that is forwarded, in bytes.
const LARGEST_MESSAGE: usize = 1024 * 1024;

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
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            relay(&interceptor, read_frames(from_client), to_client, read_frames(from_server), to_server).await
        }
    })
    .await
}

/// A line of the protocol, with the payload that follows it, if any.
struct Frame {
    line: String,
    bytes: Vec<u8>,
}

/// Reads the frames of one side in a separate task from their handling.
fn read_frames(stream: OwnedReadHalf) -> mpsc::Receiver<Frame> {
    let (sender, frames) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut stream = BufReader::new(stream);
        while let Ok(Some(frame)) = read(&mut stream).await {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    frames
}

async fn read(stream: &mut BufReader<OwnedReadHalf>) -> Result<Option<Frame>> {
    let mut bytes = Vec::new();
    if stream.read_until(b'\n', &mut bytes).await? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let verb = line.split(' ').next().unwrap_or_default();
    if matches!(verb, "PUB" | "HPUB" | "MSG" | "HMSG") {
        let length: usize = line.rsplit(' ').next().context("a length")?.parse()?;
        if length > LARGEST_MESSAGE {
            bail!("a message of {length} bytes");
        }
        let head = bytes.len();
        bytes.resize(head + length + 2, 0);
        stream.read_exact(&mut bytes[head..]).await?;
    }
    Ok(Some(Frame { line, bytes }))
}

async fn relay(
    interceptor: &Interceptor,
    mut from_client: mpsc::Receiver<Frame>,
    mut to_client: OwnedWriteHalf,
    mut from_server: mpsc::Receiver<Frame>,
    mut to_server: OwnedWriteHalf,
) -> Result<()> {
    // Messages that are published and not confirmed yet, by the subject of the confirmation.
    let mut pending: HashMap<String, (Option<Fault>, EffectInProgress<'_>)> = HashMap::new();
    loop {
        tokio::select! {
            frame = from_client.recv() => {
                let Some(frame) = frame else { return Ok(()) };
                let mut acknowledged = None;
                if let Some(effect) = effect(&frame.line) {
                    let (fault, in_progress) =
                        interceptor.injector.intercept(interceptor.channel, &effect.operation, interceptor.component);
                    interceptor.injector.wait_while_held(interceptor.channel).await;
                    if matches!(interceptor.inject_before(fault).await, Some(Interruption::Disconnect)) {
                        return Ok(());
                    }
                    match effect.confirmation_subject {
                        Some(subject) => drop(pending.insert(subject, (fault, in_progress))),
                        None => acknowledged = Some((fault, in_progress)),
                    }
                }
                to_server.write_all(&frame.bytes).await?;
                if let Some((fault, _in_progress)) = acknowledged && !interceptor.inject_after(fault).await {
                    return Ok(());
                }
            }
            frame = from_server.recv() => {
                let Some(frame) = frame else { return Ok(()) };
                interceptor.injector.wait_while_held(interceptor.channel).await;
                let subject = frame.line.split(' ').nth(1).unwrap_or_default();
                if let Some((fault, _in_progress)) = pending.remove(subject) && !interceptor.inject_after(fault).await {
                    return Ok(());
                }
                to_client.write_all(&frame.bytes).await?;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Effect {
    operation: String,
    /// The subject on which the broker confirms the effect, if it does.
    confirmation_subject: Option<String>,
}

/// The effect of a client's line; `None` if the line does not count as an effect.
fn effect(line: &str) -> Option<Effect> {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let (subject, sizes) = match words.as_slice() {
        ["PUB", subject, ..] => (*subject, 1),
        ["HPUB", subject, ..] => (*subject, 2),
        _ => return None,
    };
    if let Some(rest) = subject.strip_prefix("$JS.ACK.") {
        // The position of the stream's name depends on the version of the subject format.
        let stream = rest.split('.').find(|token| token.starts_with("ORDERS-"))?;
        return Some(Effect { operation: format!("ack {stream}"), confirmation_subject: None });
    }
    let confirmation_subject = (words.len() == 3 + sizes).then(|| words[2].to_owned());
    subject.starts_with("orders.").then(|| Effect { operation: format!("publish {subject}"), confirmation_subject })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_named_after_the_subject_or_the_stream() {
        let named = |line| effect(line).map(|effect| (effect.operation, effect.confirmation_subject));
        assert_eq!(
            named("HPUB orders.decided _INBOX.operator.a.b 12 200"),
            Some(("publish orders.decided".to_owned(), Some("_INBOX.operator.a.b".to_owned())))
        );
        assert_eq!(named("PUB $JS.ACK.ORDERS-PAYMENTS.billing.1.2.3.4.0 4"), Some(("ack ORDERS-PAYMENTS".to_owned(), None)));
        assert_eq!(named("PUB $JS.API.STREAM.INFO.ORDERS-PAYMENTS _INBOX.x 0"), None);
        assert_eq!(named("PING"), None);
    }
}
