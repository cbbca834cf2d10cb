//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::Uri;
use jiff::{SignedDuration, Timestamp};

/// Orders of a release, live and archived ones alike.
///
/// The release's REST API is asked, through the Kubernetes API server. For that you must be allowed to list services and
/// to get and create services/proxy in the release's namespace, as with the role edit.
///
/// Exit code 0 if all went well, 1 if something was refused, not found or not reached, 2 if the command line is wrong.
/// The audit has codes of its own: see `kubectl orders audit --help`.
#[derive(Debug, Parser)]
#[command(name = "kubectl-orders", bin_name = "kubectl orders", version)]
pub struct Arguments {
    /// Where the API is.
    #[command(flatten)]
    pub access: AccessArgs,
    /// How it is printed.
    #[command(flatten)]
    pub print: PrintArgs,
    /// What is done.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the release's API is.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct AccessArgs {
    /// Namespace of the release; the context's if not given.
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,

    /// Context of the kubeconfig; the current one if not given.
    #[arg(long, global = true)]
    pub context: Option<String>,

    /// The kubeconfig; KUBECONFIG or ~/.kube/config if not given.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Service of the API; the namespace's only one that the chart made if not given.
    #[arg(long, global = true, value_name = "NAME[:PORT]")]
    pub service: Option<String>,

    /// Ask the API at this URL instead, as in http://arch.homework; then no kubeconfig is read.
    #[arg(long, env = "ORDERS_SERVER", global = true, value_name = "URL", value_parser = server)]
    pub server: Option<Uri>,
}

/// How it is printed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct PrintArgs {
    /// Other than a table; wide is a table with more columns.
    #[arg(long, short, value_enum, global = true)]
    pub output: Option<Format>,

    /// Leave out the table's first line.
    #[arg(long, global = true)]
    pub no_headers: bool,
}

/// A form of output other than the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table with more columns.
    Wide,
    /// As the API answers.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names that kubectl takes.
    Name,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What the API is asked for.
    #[command(flatten)]
    Api(ApiCommand),
    /// Prove that the money adds up: run the release's audit and tell what it found.
    ///
    /// Makes a Job of the CronJob that the chart has for it, waits for its end, prints its log and deletes it. For that you must
    /// be allowed to list cronjobs, to get, create and delete jobs, to list pods and to get pods/log, as with the role edit.
    ///
    /// Exit code 0 only if everything holds, 1 if something does not, 2 if it could not be found out.
    Audit(AuditArgs),
}

/// What the API is asked for.
#[derive(Debug, Subcommand)]
pub enum ApiCommand {
    /// List orders, newest first.
    List(ListArgs),
    /// Show orders.
    Get {
        /// Numbers of the orders.
        #[arg(required = true, value_name = "ID", value_parser = id)]
        ids: Vec<i64>,
        /// Go on, and print an order again whenever it changes.
        #[arg(long, short)]
        watch: bool,
    },
    /// Cancel an order: one not charged yet never will be, a charge is given back.
    Cancel {
        /// Number of the order.
        #[arg(value_parser = id)]
        id: i64,
    },
    /// Charge a refused order again, say after a refill.
    Retry {
        /// Number of the order.
        #[arg(value_parser = id)]
        id: i64,
    },
    /// Send again a customer's message that was given up.
    Resend {
        /// Number of the order.
        #[arg(value_parser = id)]
        id: i64,
    },
    /// Show what happened to an order, oldest first.
    History {
        /// Number of the order.
        #[arg(value_parser = id)]
        id: i64,
    },
}

/// Which orders are listed.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only orders of this login.
    #[arg(long)]
    pub login: Option<String>,

    /// Only orders in this state, as in column STATUS: Paid, InsufficientFunds …
    #[arg(long)]
    pub state: Option<String>,

    /// Only orders placed then or later, as in 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,

    /// Only orders placed earlier.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,

    /// At most so many orders.
    #[arg(long, value_name = "N", default_value = "500")]
    pub limit: NonZeroUsize,

    /// Go on, and print an order again whenever it changes, and new ones.
    #[arg(long, short)]
    pub watch: bool,
}

/// How the audit is run.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// CronJob of the audit; the namespace's only one that the chart made if not given.
    #[arg(long = "cronjob", value_name = "NAME")]
    pub cron_job: Option<String>,

    /// How long to wait for its end, as in 90s or 10m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time_limit)]
    pub timeout: Duration,
}

fn time_limit(text: &str) -> Result<Duration, String> {
    let limit = text.parse::<SignedDuration>().ok().and_then(|limit| Duration::try_from(limit).ok());
    limit.filter(|limit| !limit.is_zero()).ok_or_else(|| "must be a length of time, as in 90s or 10m".to_owned())
}

fn server(text: &str) -> Result<Uri, String> {
    let uri = text.parse().ok().filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none());
    uri.ok_or_else(|| "must be a URL, as in http://arch.homework".to_owned())
}

/// Reads an order's number: `14`, or `order-14` as `--output name` prints it.
fn id(text: &str) -> Result<i64, String> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let number = name.strip_prefix("order-").unwrap_or(name).parse().ok().filter(|id| *id > 0);
    number.ok_or_else(|| "an order's number is a positive integer".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_order_is_named_by_its_number_or_as_kubectl_does() {
        for text in ["14", "order-14", "order.arch.homework/order-14"] {
            assert_eq!(id(text), Ok(14), "{text}");
        }
        for text in ["", "0", "-1", "x", "order-", "14/", "9223372036854775808"] {
            assert!(id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_is_a_url() {
        assert!(server("http://arch.homework").is_ok() && server("https://shop.example:8443/api").is_ok());
        for text in ["", "arch.homework", "/orders", "ftp://arch.homework", "http://arch.homework/?x=y"] {
            assert!(server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_limit_is_positive_and_has_a_unit() {
        assert_eq!(time_limit("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time_limit("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["", "0s", "-1s", "10", "soon"] {
            assert!(time_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn kubectls_flags_stand_before_or_after_the_command() {
        for line in ["orders -n shop -o wide list", "orders list -n shop -o wide"] {
            let arguments = Arguments::parse_from(line.split(' '));
            assert_eq!(arguments.access.namespace.as_deref(), Some("shop"), "{line}");
            assert_eq!(arguments.print.output, Some(Format::Wide), "{line}");
        }
    }
}
