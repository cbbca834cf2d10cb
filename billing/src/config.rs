//! Command line and environment.

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
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8080")]
    pub listen_addr: SocketAddr,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,

    /// sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE. A SQLite file is made if it is not there.
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite:///data/billing.db", hide_env_values = true)]
    pub database_url: SecretString,

    /// Connections to the database at most. SQLite writes one at a time whatever this says.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// Audience that callers' tokens must be made for.
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = "orders-billing")]
    pub token_audience: String,

    /// Account that may withdraw: system:serviceaccount:NAMESPACE:NAME of the operator.
    #[arg(long, env = "OPERATOR_ACCOUNT")]
    pub operator_account: String,

    /// Account that may register and refill: that of the api-server.
    #[arg(long, env = "API_SERVER_ACCOUNT")]
    pub api_server_account: String,

    /// Account that may read the whole ledger, besides the operator's: that of the audit.
    #[arg(long, env = "AUDIT_ACCOUNT")]
    pub audit_account: Option<String>,

    /// The broker that requests for payment come over, besides HTTP.
    #[command(flatten)]
    pub broker: BrokerArgs,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}
