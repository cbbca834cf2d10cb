//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::Uri;
use jiff::{SignedDuration, Span, Timestamp, Zoned, civil::Date};
use kube::config::AuthInfo;
use secrecy::SecretString;

/// The time limit of a request, unless the command line sets it. It is longer than the API lets a request wait.
const TIMEOUT: Duration = Duration::from_secs(90);

/// List, show and change the orders of a release, live and archived.
///
/// The plugin calls the release's REST API through the Kubernetes API server. You need permission
/// to list services and to get and create services/proxy in the release's namespace, as in the role
/// edit.
///
/// The exit code is 0 if the command succeeded, 1 if a request was refused, an order was not found
/// or the API was not reached, and 2 if the command line is invalid. The audit has its own exit
/// codes: see `kubectl orders audit --help`.
#[derive(Debug, Parser)]
#[command(name = "kubectl-orders", bin_name = "kubectl orders", version)]
pub struct Arguments {
    /// How the API is reached.
    #[command(flatten)]
    pub access: AccessArgs,
    /// How the output is printed.
    #[command(flatten)]
    pub print: PrintArgs,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// How the release's API is reached.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct AccessArgs {
    /// Namespace of the release. Defaults to the namespace of the context.
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,

    /// Context of the kubeconfig. Defaults to the current context.
    #[arg(long, global = true)]
    pub context: Option<String>,

    /// Path of the kubeconfig. Defaults to KUBECONFIG or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// User to impersonate for the operation.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,

    /// Group to impersonate for the operation; can be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "impersonate")]
    pub impersonate_groups: Vec<String>,

    /// Bearer token for the Kubernetes API server, in place of the user of the kubeconfig.
    #[arg(long, global = true, hide_env_values = true)]
    pub token: Option<SecretString>,

    /// How long to wait for the reply to a single request, such as 30s. Defaults to 90s, which is longer
    /// than the API lets a request wait.
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_timeout)]
    pub request_timeout: Option<Duration>,

    /// Service of the API. Defaults to the only API Service of the chart in the namespace.
    #[arg(long, global = true, value_name = "NAME[:PORT]")]
    pub service: Option<String>,

    /// URL of the API, such as http://arch.homework. The API is then called directly, without a
    /// kubeconfig.
    #[arg(long, env = "ORDERS_SERVER", global = true, value_name = "URL", value_parser = parse_server)]
    pub server: Option<Uri>,
}

impl AccessArgs {
    /// The time limit of a request.
    pub fn timeout(&self) -> Duration {
        self.request_timeout.unwrap_or(TIMEOUT)
    }

    /// Changes the credentials as the flags say.
    pub fn apply_to(&self, credentials: &mut AuthInfo) {
        if let Some(token) = &self.token {
            *credentials = AuthInfo { token: Some(token.clone()), ..AuthInfo::default() };
        }
        if let Some(user) = &self.impersonate {
            credentials.impersonate = Some(user.clone());
            credentials.impersonate_groups = Some(self.impersonate_groups.clone()).filter(|groups| !groups.is_empty());
        }
    }
}

/// How the output is printed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct PrintArgs {
    /// Output format. Defaults to a table; wide is a table with more columns.
    #[arg(long, short, value_enum, global = true)]
    pub output: Option<Format>,

    /// Do not print the headers of the table.
    #[arg(long, global = true)]
    pub no_headers: bool,
}

/// An output format other than the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table with more columns.
    Wide,
    /// The JSON of the API's response.
    Json,
    /// The API's response as YAML.
    Yaml,
    /// Resource names that kubectl accepts.
    Name,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A command that calls the API.
    #[command(flatten)]
    Api(ApiCommand),
    /// Run the release's audit, which checks that orders, ledger and messages agree, and print its
    /// report.
    ///
    /// Creates a Job from the chart's CronJob of the audit, waits until the Job ends, prints its
    /// log and deletes it. You need permission to list cronjobs, to get, create and delete jobs, to
    /// list pods and to get pods/log, as in the role edit.
    ///
    /// The exit code is 0 only if all checks pass, 1 if a check fails, and 2 if the audit could not
    /// determine the result.
    Audit(AuditArgs),
    /// List the orders of which a step failed and is tried again: the step, the number of attempts in a row, the
    /// next one, and the last error.
    ///
    /// Reads the resources. You need permission to list orders, as in the role view.
    Stuck(AllNamespaces),
    /// List and replay dead letters: messages of the broker that a service could not handle.
    ///
    /// Creates a Job from the chart's CronJob of the dead letters, waits until the Job ends, prints its log and deletes it.
    /// You need the permissions of `kubectl orders audit`.
    DeadLetters(DeadLettersArgs),
}

/// Options of the dead letters.
#[derive(Clone, Debug, Args)]
pub struct DeadLettersArgs {
    /// The command.
    #[command(subcommand)]
    pub command: DeadLettersCommand,

    /// How long to wait for the Job, such as 90s or 5m.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_timeout, global = true)]
    pub timeout: Duration,
}

/// A command for the dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List the dead letters, oldest first, each with its number, reason and message.
    List,
    /// Publish dead letters again on their subjects.
    Replay {
        /// Number of the dead letter.
        #[arg(required_unless_present = "all", value_parser = clap::value_parser!(u64).range(1..))]
        number: Option<u64>,
        /// Replay all dead letters.
        #[arg(long, conflicts_with = "number")]
        all: bool,
    },
}

/// Selects all namespaces.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct AllNamespaces {
    /// The orders of all namespaces.
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

/// A command that calls the API.
#[derive(Debug, Subcommand)]
pub enum ApiCommand {
    /// List orders, newest first.
    List(ListArgs),
    /// Show orders.
    Get {
        /// Numbers or names of the orders.
        #[arg(required = true, value_name = "ID", value_parser = parse_id)]
        ids: Vec<String>,
        /// Keep watching, and print an order again whenever it changes.
        #[arg(long, short)]
        watch: bool,
    },
    /// Cancel an order: it is never charged, or its charge is refunded.
    Cancel {
        /// Number or name of the order.
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: String,
    },
    /// Charge a refused order again, for example after a refill.
    Retry {
        /// Number or name of the order.
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: String,
    },
    /// Send a customer's message again whose delivery was given up.
    Resend {
        /// Number or name of the order.
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: String,
    },
    /// Show the history of an order, oldest entry first.
    History {
        /// Number or name of the order.
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: String,
    },
}

/// Selects the orders to list.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only orders of this login.
    #[arg(long)]
    pub login: Option<String>,

    /// Only orders in this state, as in the column STATUS: Paid, InsufficientFunds …
    #[arg(long)]
    pub state: Option<String>,

    /// Only orders placed at this time or later: 24h or 7d ago, at the beginning of the day 2026-01-31 in
    /// the local time zone, or at 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<Timestamp>,

    /// Only orders placed before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<Timestamp>,

    /// Maximum number of orders.
    #[arg(long, value_name = "N", default_value = "500")]
    pub limit: NonZeroUsize,

    /// Keep watching, and print new orders and orders that change.
    #[arg(long, short, conflicts_with = "all_namespaces")]
    pub watch: bool,

    /// All namespaces: the orders of every release that you may list services for.
    #[command(flatten)]
    pub all: AllNamespaces,
}

/// Options of the audit.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// CronJob of the audit. Defaults to the only audit CronJob of the chart in the namespace.
    #[arg(long = "cronjob", value_name = "NAME")]
    pub cron_job: Option<String>,

    /// How long to wait until the audit ends, such as 90s or 10m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_timeout)]
    pub timeout: Duration,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    time_at(text, &Zoned::now()).ok_or_else(|| {
        "must be a time ago such as 24h or 7d, a day such as 2026-01-31, or a time such as 2026-01-31T00:00:00Z".to_owned()
    })
}

/// The time that a text means at this moment.
fn time_at(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(day) = text.parse::<Date>() {
        return day.to_zoned(now.time_zone().clone()).ok().map(|start| start.timestamp());
    }
    let ago: Span = text.parse().ok()?;
    if ago.is_negative() { None } else { now.checked_sub(ago).ok().map(|time| time.timestamp()) }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = text.parse::<SignedDuration>().ok().and_then(|timeout| Duration::try_from(timeout).ok());
    timeout.filter(|timeout| !timeout.is_zero()).ok_or_else(|| "must be a duration, such as 90s or 10m".to_owned())
}

fn parse_server(text: &str) -> Result<Uri, String> {
    let uri = text.parse().ok().filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none());
    uri.ok_or_else(|| "must be a URL, such as http://arch.homework".to_owned())
}

/// Parses an order's number, such as `14`, or its name, such as `order-14` or `order.arch.homework/by-hand`.
fn parse_id(text: &str) -> Result<String, String> {
    let name = ["order.arch.homework/", "orders.arch.homework/", "order/", "orders/", "ord/"]
        .iter()
        .find_map(|kind| text.strip_prefix(kind))
        .unwrap_or(text);
    let is_zero = name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit());
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && name.len() < text.len() {
        // Order 14 is the resource order-14, and not the one that somebody named 14.
        return Err(format!(
            "the API knows {name} only as the number of order-{name}: use kubectl for a resource with this name"
        ));
    }
    if name.is_empty() || name.starts_with(['-', '.']) || is_zero || !is_name(name) {
        return Err("must be the number or the name of an order, such as 14 or order-14".to_owned());
    }
    let number =
        name.strip_prefix("order-").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0'));
    Ok(number.filter(|number| !number.is_empty()).unwrap_or(name).to_owned())
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
    fn an_order_is_named_by_its_number_or_its_kubectl_name() {
        for (text, expected) in [
            ("14", "14"),
            ("order-14", "14"),
            ("order.arch.homework/order-14", "14"),
            ("ord/by-hand", "by-hand"),
            ("by-hand", "by-hand"),
            ("order-014", "order-014"),
            ("order-", "order-"),
            ("v1.2", "v1.2"),
        ] {
            assert_eq!(parse_id(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "0", "014", "order/14", "-1", ".x", "14/", "a/b", "../x", "A", "a b", "a?b"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_is_a_url() {
        assert!(parse_server("http://arch.homework").is_ok() && parse_server("https://shop.example:8443/api").is_ok());
        for text in ["", "arch.homework", "/orders", "ftp://arch.homework", "http://arch.homework/?x=y"] {
            assert!(parse_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_a_time_ago_a_day_or_a_moment() {
        let now: Zoned = "2026-11-29T05:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("24h", "2026-11-28T04:00:00Z"),
            ("90m", "2026-11-29T02:30:00Z"),
            ("7d", "2026-11-22T04:00:00Z"),
            ("1h30m", "2026-11-29T02:30:00Z"),
            ("2026-11-25", "2026-11-24T23:00:00Z"),
            ("2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"),
            ("2026-01-31T01:00:00+01:00", "2026-01-31T00:00:00Z"),
        ] {
            assert_eq!(time_at(text, &now), expected.parse().ok(), "{text}");
        }
        for text in ["", "yesterday", "-24h", "24", "2026-13-01", "25.11.2026"] {
            assert_eq!(time_at(text, &now), None, "{text}");
        }
    }

    #[test]
    fn the_flags_of_credentials_replace_those_of_the_kubeconfig() {
        let apply = |line: &str| {
            let mut credentials = AuthInfo { username: Some("me".to_owned()), ..AuthInfo::default() };
            Arguments::parse_from(line.split(' ')).access.apply_to(&mut credentials);
            let token = credentials.token.is_some();
            (credentials.username, token, credentials.impersonate, credentials.impersonate_groups)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(apply("orders list"), (text("me"), false, None, None));
        assert_eq!(apply("orders list --token t"), (None, true, None, None));
        assert_eq!(
            apply("orders list --as eva --as-group a --as-group b"),
            (text("me"), false, text("eva"), Some(vec!["a".to_owned(), "b".to_owned()]))
        );
        assert!(Arguments::try_parse_from("orders list --as-group a".split(' ')).is_err());
    }

    #[test]
    fn a_timeout_is_positive_and_has_a_unit() {
        assert_eq!(parse_timeout("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_timeout("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["", "0s", "-1s", "10", "soon"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn kubectls_flags_are_accepted_before_and_after_the_command() {
        for line in ["orders -n shop -o wide list", "orders list -n shop -o wide"] {
            let arguments = Arguments::parse_from(line.split(' '));
            assert_eq!(arguments.access.namespace.as_deref(), Some("shop"), "{line}");
            assert_eq!(arguments.print.output, Some(Format::Wide), "{line}");
        }
    }
}
