//! The proxy between notify and the mail server (RFC 5321, without extensions that change
//! the sequence of commands).

use anyhow::{Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Interceptor, Interruption, listen};

/// Serves on a free port, and returns the port. Connections are forwarded to `upstream` (`host:port`).
///
/// # Errors
/// If no port is available.
pub async fn serve(interceptor: Interceptor, upstream: String) -> Result<u16> {
    listen(move |client| {
        let (interceptor, upstream) = (interceptor.clone(), upstream.clone());
        async move { relay(&interceptor, client, TcpStream::connect(upstream).await?).await }
    })
    .await
}

async fn relay(interceptor: &Interceptor, client: TcpStream, server: TcpStream) -> Result<()> {
    server.set_nodelay(true)?;
    let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
    let greeting = read_reply(&mut server).await?;
    client.write_all(&greeting).await?;
    loop {
        let mut request = read_line(&mut client).await?;
        let mut operation = effect(&request);
        let is_data = operation == Some("DATA");
        loop {
            let Some(name) = operation else {
                server.write_all(&request).await?;
                client.write_all(&read_reply(&mut server).await?).await?;
                break;
            };
            let (fault, _in_progress) = interceptor.injector.intercept(interceptor.channel, name, interceptor.component);
            interceptor.injector.wait_while_held(interceptor.channel).await;
            match interceptor.inject_before(fault).await {
                Some(Interruption::Disconnect) => return Ok(()),
                Some(Interruption::Reply(code)) => {
                    client.write_all(format!("{code} an injected fault\r\n").as_bytes()).await?;
                    // The server did not receive the command, so the two sides differ. A new connection is simpler than a repair.
                    return client.shutdown().await.map_err(Into::into);
                }
                None => {}
            }
            server.write_all(&request).await?;
            let response = read_reply(&mut server).await?;
            if !interceptor.inject_after(fault).await {
                return Ok(());
            }
            client.write_all(&response).await?;
            if !(is_data && name == "DATA" && response.starts_with(b"354")) {
                break;
            }
            // The effect is the message as a whole, not its lines.
            request = read_message(&mut client).await?;
            operation = Some("message");
        }
    }
}

fn effect(request: &[u8]) -> Option<&'static str> {
    let verb = request.get(..4)?.to_ascii_uppercase();
    match verb.as_slice() {
        b"MAIL" => Some("MAIL"),
        b"RCPT" => Some("RCPT"),
        b"DATA" => Some("DATA"),
        _ => None,
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        bail!("the connection is closed");
    }
    Ok(line)
}

/// Reads a reply of one or several lines.
async fn read_reply(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut reply = Vec::new();
    loop {
        let line = read_line(stream).await?;
        reply.extend_from_slice(&line);
        if line.get(3) != Some(&b'-') {
            return Ok(reply);
        }
    }
}

/// Reads a message, including the line that ends it.
async fn read_message(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let line = read_line(stream).await?;
        message.extend_from_slice(&line);
        if line == b".\r\n" {
            return Ok(message);
        }
    }
}
