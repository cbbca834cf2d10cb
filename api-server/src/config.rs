//! The configuration of the api-server, from the command line and the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use orders_service::telemetry::LogArgs;

use crate::cross_origin::Origin;

/// The order service's public HTTP API.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of the public HTTP API.
    #[arg(long, env = "LISTEN_ADDR", default_value = "[::]:8080")]
    pub listen_addr: SocketAddr,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "[::]:9090")]
    pub admin_addr: SocketAddr,

    /// Namespace in which orders are created. Defaults to the namespace of the kube configuration.
    #[arg(long, env = "NAMESPACE")]
    pub namespace: Option<String>,

    /// URL of the billing service, such as http://orders-billing:80.
    #[arg(long, env = "BILLING_URL")]
    pub billing_url: String,

    /// URL of the notify service, such as http://orders-notify:80.
    #[arg(long, env = "NOTIFY_URL")]
    pub notify_url: String,

    /// File with the token for calls to billing.
    #[arg(long, env = "BILLING_TOKEN_FILE", default_value = "/var/run/secrets/orders/billing/token")]
    pub billing_token_file: PathBuf,

    /// URL of the archive, such as http://orders-archive:80. Without it, only live orders are
    /// found.
    #[arg(long, env = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    /// File with the token for calls to the archive.
    #[arg(long, env = "ARCHIVE_TOKEN_FILE", default_value = "/var/run/secrets/orders/archive/token")]
    pub archive_token_file: PathBuf,

    /// Maximum number of live orders. When it is reached, POST /orders/ is answered 503. Each live
    /// order uses 3 KiB of etcd's quota of 2 GiB.
    #[arg(long, env = "MAX_LIVE_ORDERS", default_value_t = 100_000)]
    pub max_live_orders: usize,

    /// Seconds that POST /orders/ waits for the outcome before it answers 202. A client can set
    /// another wait.
    #[arg(long, env = "WAIT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=55))]
    pub wait_seconds: u64,

    /// Seconds that the response waits for the customer's message to be sent once the outcome is
    /// known.
    #[arg(long, env = "MAIL_WAIT_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub mail_wait_seconds: u64,

    /// Origins of web pages that may call the API from a browser (CORS), such as
    /// https://shop.example.com, separated by commas. By default none.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<Origin>,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}
