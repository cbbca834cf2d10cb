//! An SMTP server that delivers nothing and shows what it received, for trials
//! and tests.

use std::net::IpAddr;

use clap::Parser;
use orders_testbed::Credentials;
use tokio::signal::unix::{SignalKind, signal};

/// Accepts all mail, delivers none of it, and shows it: a page at /, JSON at /api/messages
/// (DELETE empties the inbox), the source at /api/messages/<id>/source.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Address to listen on
    #[arg(long, env = "INBOX_IP", default_value = "0.0.0.0")]
    ip: IpAddr,
    /// Port for mail
    #[arg(long, env = "INBOX_SMTP_PORT", default_value_t = 1025)]
    smtp_port: u16,
    /// Port for the page and the API
    #[arg(long, env = "INBOX_HTTP_PORT", default_value_t = 1080)]
    http_port: u16,
    /// How many messages are kept, in memory
    #[arg(long, env = "INBOX_MESSAGES_LIMIT", default_value_t = 1000)]
    messages_limit: usize,
    /// Take mail only from clients that log in like this
    #[arg(long, env = "INBOX_CREDENTIALS", value_name = "USER:PASSWORD", hide_env_values = true)]
    credentials: Option<Credentials>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let smtp = (options.ip, options.smtp_port).into();
    let http = (options.ip, options.http_port).into();
    // As process 1 of a container, a program ends by SIGTERM only if it says so.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = orders_testbed::serve_inbox(smtp, http, options.messages_limit, options.credentials) => result,
        _ = terminated.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}
