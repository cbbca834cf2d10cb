//! Command line and environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use orders_service::telemetry::LogArgs;

/// The order service's public HTTP API.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of the public HTTP API.
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8080")]
    pub listen_addr: SocketAddr,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,

    /// Namespace where orders are created; that of the kube configuration if not set.
    #[arg(long, env = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The billing service, as in http://orders-billing:80.
    #[arg(long, env = "BILLING_URL")]
    pub billing_url: String,

    /// The notify service, as in http://orders-notify:80.
    #[arg(long, env = "NOTIFY_URL")]
    pub notify_url: String,

    /// Token to show to billing.
    #[arg(long, env = "BILLING_TOKEN_FILE", default_value = "/var/run/secrets/orders/billing/token")]
    pub billing_token_file: PathBuf,

    /// The archive, as in http://orders-archive:80; without it only live orders are found.
    #[arg(long, env = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    /// Token to show to the archive.
    #[arg(long, env = "ARCHIVE_TOKEN_FILE", default_value = "/var/run/secrets/orders/archive/token")]
    pub archive_token_file: PathBuf,

    /// Live orders beyond which none is placed; POST /orders/ is answered 503 then. 3 KiB each count against etcd's quota of 2 GiB.
    #[arg(long, env = "MAX_LIVE_ORDERS", default_value_t = 100_000)]
    pub max_live_orders: usize,

    /// Seconds that POST /orders/ waits for the outcome before it answers 202, unless the client says otherwise.
    #[arg(long, env = "WAIT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub wait_seconds: u64,

    /// Seconds that the answer waits for the customer's message to be sent once the outcome is known.
    #[arg(long, env = "MAIL_WAIT_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub mail_wait_seconds: u64,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}
