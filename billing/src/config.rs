//! Billing's configuration: command-line options and environment variables.

use std::net::SocketAddr;

use clap::Parser;
use orders_service::broker::BrokerArgs;
use orders_service::telemetry::LogArgs;
use secrecy::SecretString;

/// The billing service: accounts and an append-only ledger.
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
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite:///data/billing.db", hide_env_values = true)]
    pub database_url: SecretString,

    /// Maximum number of connections to the database. SQLite makes one write at a time, regardless
    /// of this value.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// Audience that the callers' tokens must have.
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = "orders-billing")]
    pub token_audience: String,

    /// Service account of the operator, as system:serviceaccount:NAMESPACE:NAME. It may open
    /// accounts, and charge, close and refund.
    #[arg(long, env = "OPERATOR_ACCOUNT")]
    pub operator_account: String,

    /// Service account of the api-server. It may register and refill accounts.
    #[arg(long, env = "API_SERVER_ACCOUNT")]
    pub api_server_account: String,

    /// Service account of the audit. It may read the whole ledger, as the operator's account may.
    #[arg(long, env = "AUDIT_ACCOUNT")]
    pub audit_account: Option<String>,

    /// The broker that delivers payment requests, in addition to HTTP.
    #[command(flatten)]
    pub broker: BrokerArgs,

    /// Logging options.
    #[command(flatten)]
    pub log: LogArgs,
}
