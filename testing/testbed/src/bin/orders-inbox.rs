//! `orders-inbox`, an SMTP server for trials and tests. It delivers no mail, and shows the messages
//! that it received.

use std::net::IpAddr;

use clap::Parser;
use orders_testbed::Credentials;
use tokio::signal::unix::{SignalKind, signal};

/// Accepts all mail, delivers none, and shows the messages: as a web page at /, as JSON at
/// /api/messages (DELETE empties the inbox), and as source at /api/messages/<id>/source.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Address to listen on
    #[arg(long, env = "INBOX_IP", default_value = "0.0.0.0")]
    ip: IpAddr,
    /// SMTP port
    #[arg(long, env = "INBOX_SMTP_PORT", default_value_t = 1025)]
    smtp_port: u16,
    /// HTTP port of the web page and the API
    #[arg(long, env = "INBOX_HTTP_PORT", default_value_t = 1080)]
    http_port: u16,
    /// Number of messages to keep in memory; beyond it, the oldest are dropped
    #[arg(long, env = "INBOX_MESSAGES_LIMIT", default_value_t = 1000)]
    messages_limit: usize,
    /// Accept mail only from clients that log in with these credentials
    #[arg(long, env = "INBOX_CREDENTIALS", value_name = "USER:PASSWORD", hide_env_values = true)]
    credentials: Option<Credentials>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let smtp = (options.ip, options.smtp_port).into();
    let http = (options.ip, options.http_port).into();
    // As process 1 of a container, a program terminates on SIGTERM only if it handles the signal.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = orders_testbed::serve_inbox(smtp, http, options.messages_limit, options.credentials) => result,
        _ = terminated.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}
