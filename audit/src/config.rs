//! The audit's configuration: command-line options and environment variables.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use orders_service::telemetry::LogArgs;

/// Checks that the Orders, the ledger and the message log of a live installation agree.
///
/// The exit code is 0 if no rule is violated, 1 if a rule is violated, and 2 if the audit cannot be
/// completed.
#[derive(Debug, Parser)]
#[command(name = "orders-audit", version)]
pub struct Config {
    /// Namespace of the orders to check. Use the operator's namespace. Without this option, the
    /// audit checks the orders of all namespaces.
    #[arg(long, env = "NAMESPACE")]
    pub namespace: Option<String>,

    /// URL of the billing service, such as http://orders-billing:80.
    #[arg(long, env = "BILLING_URL")]
    pub billing_url: String,

    /// URL of the notify service, such as http://orders-notify:80.
    #[arg(long, env = "NOTIFY_URL")]
    pub notify_url: String,

    /// URL of the archive, such as http://orders-archive:80. Without this option, the audit checks
    /// only live orders.
    #[arg(long, env = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    /// File with the service-account token for the archive.
    #[arg(long, env = "ARCHIVE_TOKEN_FILE", default_value = "/var/run/secrets/orders/archive/token")]
    pub archive_token_file: PathBuf,

    /// File with the service-account token for billing.
    #[arg(long, env = "BILLING_TOKEN_FILE", default_value = "/var/run/secrets/orders/billing/token")]
    pub billing_token_file: PathBuf,

    /// File with the service-account token for notify.
    #[arg(long, env = "NOTIFY_TOKEN_FILE", default_value = "/var/run/secrets/orders/notify/token")]
    pub notify_token_file: PathBuf,

    /// Format of the report.
    #[arg(long, short, env = "OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Logging options.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Plain text.
    Text,
    /// One JSON object.
    Json,
}
