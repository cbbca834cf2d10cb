//! The operator's configuration, from the command line and the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use orders_contracts::interaction::Interaction;
use orders_service::broker::BrokerArgs;
use orders_service::telemetry::LogArgs;

/// The operator: charges each Order once, notifies its customer and writes the outcome to its status;
/// opens the billing account of each Customer.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address that serves /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_ADDR", default_value = "[::]:9090")]
    pub admin_addr: SocketAddr,

    /// Namespace whose orders and customers are reconciled. If not set: all namespaces.
    #[arg(long, env = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How the operator communicates with billing and notify: both over HTTP (http), both over the
    /// broker (broker), or billing over HTTP and notify over the broker (notify-broker).
    #[arg(long, env = "INTERACTION", default_value_t = Interaction::Http)]
    pub interaction: Interaction,

    /// URL of the billing service, for example http://orders-billing:80. With INTERACTION=broker, it is
    /// used for customers' accounts, and to capture and void charges.
    #[arg(long, env = "BILLING_URL")]
    pub billing_url: String,

    /// URL of the notify service, for example http://orders-notify:80. With a broker, it is used only
    /// for orders whose resource no longer exists.
    #[arg(long, env = "NOTIFY_URL")]
    pub notify_url: String,

    /// The broker. Required unless INTERACTION=http.
    #[command(flatten)]
    pub broker: BrokerArgs,

    /// File with the bearer token for billing.
    #[arg(long, env = "BILLING_TOKEN_FILE", default_value = "/var/run/secrets/orders/billing/token")]
    pub billing_token_file: PathBuf,

    /// File with the bearer token for notify.
    #[arg(long, env = "NOTIFY_TOKEN_FILE", default_value = "/var/run/secrets/orders/notify/token")]
    pub notify_token_file: PathBuf,

    /// URL of the archive, for example http://orders-archive:80. If not set, finished orders are
    /// neither archived nor removed.
    #[arg(long, env = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    /// File with the bearer token for the archive.
    #[arg(long, env = "ARCHIVE_TOKEN_FILE", default_value = "/var/run/secrets/orders/archive/token")]
    pub archive_token_file: PathBuf,

    /// Seconds after which the resource of a finished and archived order is removed, 0 to 31536000. An
    /// order's own ttlSecondsAfterFinished overrides this value. If not set, only orders with their own
    /// value are removed.
    #[arg(long, env = "TTL_SECONDS_AFTER_FINISHED", value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub ttl_seconds_after_finished: Option<u64>,

    /// Seconds between two checks of the charges that are neither captured nor voided, 1 to 3600.
    #[arg(long, env = "SETTLEMENT_INTERVAL_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub settlement_interval_seconds: u64,

    /// Seconds after which such a charge is settled if its order no longer exists, 5 to 3600. It must be
    /// longer than the reconciliation of an order takes.
    #[arg(long, env = "SETTLEMENT_MIN_AGE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub settlement_min_age_seconds: u64,

    /// Maximum number of orders reconciled at the same time, 1 to 1024.
    #[arg(long, env = "CONCURRENCY", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Reconcile only while this replica holds a Lease, so that only one of several replicas is active.
    #[arg(long, env = "LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,

    /// Namespace of the Lease. If not set: the namespace of the Kubernetes client configuration.
    #[arg(long, env = "LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "orders-operator")]
    pub lease_name: String,

    /// Seconds after which another replica may acquire the Lease of a leader that no longer renews it,
    /// 3 to 600.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    pub lease_seconds: u64,

    /// Name of this replica in the Lease and in Events. If not set: a random name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}
