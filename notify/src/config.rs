//! Command line and environment.

use std::net::SocketAddr;

use clap::Parser;
use orders_service::broker::BrokerArgs;
use orders_service::telemetry::LogArgs;
use secrecy::SecretString;

/// The notify service: e-mails customers and keeps the log of messages.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of the service's HTTP API.
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8080")]
    pub listen_addr: SocketAddr,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,

    /// sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE. A SQLite file is made if it is not there.
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite:///data/notify.db", hide_env_values = true)]
    pub database_url: SecretString,

    /// Connections to the database at most. SQLite writes one at a time whatever this says.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// The mail server: smtp://[USER:PASSWORD@]HOST:PORT[?tls=required] or smtps://…
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub smtp_url: SecretString,

    /// Connections to the mail server at most.
    #[arg(long, env = "SMTP_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub smtp_connections: u32,

    /// Attempts to deliver a message, after 1 s, 2 s, 4 s … 5 min, before it is given up; 15 take about 35 minutes.
    #[arg(long, env = "MAX_ATTEMPTS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_attempts: u32,

    /// Sender of the messages.
    #[arg(long, env = "MAIL_FROM", default_value = "orders@arch.homework")]
    pub mail_from: String,

    /// Audience that callers' tokens must be made for.
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = "orders-notify")]
    pub token_audience: String,

    /// Account that may have customers notified: system:serviceaccount:NAMESPACE:NAME of the operator.
    #[arg(long, env = "OPERATOR_ACCOUNT")]
    pub operator_account: String,

    /// Account that may read all messages, besides the operator's: that of the audit.
    #[arg(long, env = "AUDIT_ACCOUNT")]
    pub audit_account: Option<String>,

    /// The broker that outcomes come over, besides HTTP.
    #[command(flatten)]
    pub broker: BrokerArgs,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}
