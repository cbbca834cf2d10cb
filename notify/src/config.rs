//! Notify's configuration: command-line options and environment variables.

use std::net::SocketAddr;

use clap::Parser;
use orders_service::broker::BrokerArgs;
use orders_service::telemetry::LogArgs;
use secrecy::SecretString;

use crate::mailer::MailArgs;

/// The notify service: e-mails customers and keeps the log of messages.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of the service's HTTP API.
    #[arg(long, env = "LISTEN_ADDR", default_value = "[::]:8080")]
    pub listen_addr: SocketAddr,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "[::]:9090")]
    pub admin_addr: SocketAddr,

    /// URL of the database: sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE. A missing
    /// SQLite file is created.
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite:///data/notify.db", hide_env_values = true)]
    pub database_url: SecretString,

    /// Maximum number of connections to the database. SQLite makes one write at a time, regardless
    /// of this value.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// The mail server.
    #[command(flatten)]
    pub mail: MailArgs,

    /// Maximum number of connections to the mail server.
    #[arg(long, env = "SMTP_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub smtp_connections: u32,

    /// Number of attempts to deliver a message before it is given up. The pauses between the
    /// attempts are 1 s, 2 s, 4 s and so on up to 5 min. 15 attempts take about 35 minutes.
    #[arg(long, env = "MAX_ATTEMPTS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_attempts: u32,

    /// Audience that the callers' tokens must have.
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = "orders-notify")]
    pub token_audience: String,

    /// Service account of the operator, as system:serviceaccount:NAMESPACE:NAME. It may request
    /// notifications of customers.
    #[arg(long, env = "OPERATOR_ACCOUNT")]
    pub operator_account: String,

    /// Service account of the audit. It may read all messages, as the operator's account may.
    #[arg(long, env = "AUDIT_ACCOUNT")]
    pub audit_account: Option<String>,

    /// The broker that delivers outcomes, in addition to HTTP.
    #[command(flatten)]
    pub broker: BrokerArgs,

    /// Logging options.
    #[command(flatten)]
    pub log: LogArgs,
}
