//! Sends requests byte for byte that an HTTP client would reject or normalize.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::shop::Response;

/// The time limit for the request and the response.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends these bytes unchanged to a base URL, closes the sending side, and reads the response. The bytes must
/// contain `Connection: close`.
pub async fn send(base_url: &str, request: &[u8]) -> Result<Response> {
    let address = base_url.trim_start_matches("http://");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        read(&response)
    };
    tokio::time::timeout(LIMIT, exchange).await.context("no response in time")?
}

fn read(response: &[u8]) -> Result<Response> {
    let response = String::from_utf8(response.to_vec())?;
    let (head, text) = response.split_once("\r\n\r\n").with_context(|| format!("no HTTP response: {response:?}"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value.trim())?);
    }
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Response { status, content_type, headers, text: text.to_owned() })
}
