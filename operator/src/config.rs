//! Command line and environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use orders_service::broker::BrokerArgs;
use orders_service::telemetry::LogArgs;

use crate::ports::interaction::Interaction;

/// The operator: charges each Order once, has the customer told, writes the outcome; opens each Customer's account.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,

    /// Namespace whose orders and customers are looked after; all namespaces if not set.
    #[arg(long, env = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How the services talk about an order.
    #[arg(long, env = "INTERACTION", value_enum, default_value_t = Interaction::Http)]
    pub interaction: Interaction,

    /// The billing service, as in http://orders-billing:80; with INTERACTION=broker for customers' accounts only.
    #[arg(long, env = "BILLING_URL")]
    pub billing_url: String,

    /// The notify service, as in http://orders-notify:80; needed with INTERACTION=http only.
    #[arg(long, env = "NOTIFY_URL")]
    pub notify_url: Option<String>,

    /// The broker; needed unless INTERACTION=http.
    #[command(flatten)]
    pub broker: BrokerArgs,

    /// Token to show to billing.
    #[arg(long, env = "BILLING_TOKEN_FILE", default_value = "/var/run/secrets/orders/billing/token")]
    pub billing_token_file: PathBuf,

    /// Token to show to notify.
    #[arg(long, env = "NOTIFY_TOKEN_FILE", default_value = "/var/run/secrets/orders/notify/token")]
    pub notify_token_file: PathBuf,

    /// The archive, as in http://orders-archive:80; without it finished orders stay as they are.
    #[arg(long, env = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    /// Token to show to the archive.
    #[arg(long, env = "ARCHIVE_TOKEN_FILE", default_value = "/var/run/secrets/orders/archive/token")]
    pub archive_token_file: PathBuf,

    /// Seconds after which a finished order is removed, once it is archived, unless it says otherwise itself; never if not set.
    #[arg(long, env = "TTL_SECONDS_AFTER_FINISHED", value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub ttl_seconds_after_finished: Option<u64>,

    /// Orders worked on at once, at most.
    #[arg(long, env = "CONCURRENCY", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Work only while holding a Lease, so that of several replicas one works.
    #[arg(long, env = "LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,

    /// Namespace of the Lease; that of the kube configuration if not set.
    #[arg(long, env = "LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "orders-operator")]
    pub lease_name: String,

    /// Seconds until another replica may take over from a leader that is gone.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    pub lease_seconds: u64,

    /// This replica's name in the Lease and in Events; a random one if not set.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}
