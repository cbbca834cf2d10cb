//! Command line and environment.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use orders_service::telemetry::LogArgs;

/// Proves that the money adds up: joins the Orders, the ledger and the message log of a live installation.
///
/// Exit code 0 only if everything holds; 1 if something does not; 2 if it could not be found out.
#[derive(Debug, Parser)]
#[command(name = "orders-audit", version)]
pub struct Config {
    /// Namespace whose orders are looked at; all namespaces if not set. Give the operator's.
    #[arg(long, env = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The billing service, as in http://orders-billing:80.
    #[arg(long, env = "BILLING_URL")]
    pub billing_url: String,

    /// The notify service, as in http://orders-notify:80.
    #[arg(long, env = "NOTIFY_URL")]
    pub notify_url: String,

    /// The archive, as in http://orders-archive:80; without it only live orders are compared.
    #[arg(long, env = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    /// Token to show to the archive.
    #[arg(long, env = "ARCHIVE_TOKEN_FILE", default_value = "/var/run/secrets/orders/archive/token")]
    pub archive_token_file: PathBuf,

    /// Token to show to billing.
    #[arg(long, env = "BILLING_TOKEN_FILE", default_value = "/var/run/secrets/orders/billing/token")]
    pub billing_token_file: PathBuf,

    /// Token to show to notify.
    #[arg(long, env = "NOTIFY_TOKEN_FILE", default_value = "/var/run/secrets/orders/notify/token")]
    pub notify_token_file: PathBuf,

    /// Form of the report.
    #[arg(long, short, env = "OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Plain words.
    Text,
    /// One JSON object.
    Json,
}
