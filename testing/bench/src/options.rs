//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use orders_shop::Database;

/// Measures orders in comparison to the Kubernetes API server itself.
#[derive(Clone, Debug, Parser)]
#[command(version, about, args_override_self = true)]
pub struct Options {
    /// The measurement
    #[command(subcommand)]
    pub command: Command,
    /// Numbers of concurrent clients; each client places its next order after the response to the last one
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1, 8, 32, 128], value_parser = clap::value_parser!(u32).range(1..=512))]
    pub clients: Vec<u32>,
    /// Seconds of each measurement
    #[arg(long, global = true, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Number of repetitions of all measurements; each uses a new control plane
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Rates of the open loop, in orders per second and rising order; it ends when the responses do not keep up
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [10, 25, 50, 75, 100, 125, 150, 200, 300], value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rates: Vec<u32>,
    /// Databases of billing, notify and the archive; sections that need only one use the first
    #[arg(long, global = true, value_delimiter = ',', value_enum, default_values_t = [Database::Postgres, Database::Sqlite])]
    pub databases: Vec<Database>,
    /// Numbers of finished orders that are present, in rising order
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [0, 10_000, 50_000])]
    pub finished: Vec<usize>,
    /// Numbers of namespaces with orders
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1, 4, 16], value_parser = clap::value_parser!(u32).range(1..=64))]
    pub namespaces: Vec<u32>,
    /// Number of unfinished orders that are present when the operator starts
    #[arg(long, global = true, default_value_t = 10_000)]
    pub backlog: usize,
    /// Numbers of rows in the archive, in rising order
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    pub rows: Vec<u64>,
    /// Number of connection pools over which the raw client distributes its requests
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub pools: u32,
    /// Send an Idempotency-Key with each POST
    #[arg(long, global = true)]
    pub keyed: bool,
    /// Delete orders as well: the raw client right after their events, the operator later; compares the costs and not the rates
    #[arg(long, global = true)]
    pub removal: bool,
    /// Run a short test of the benchmark; its figures are not meaningful
    #[arg(long, global = true)]
    pub quick: bool,
    /// Directory with the services' programs, built with --release [default: the directory of this program]
    #[arg(long, global = true)]
    pub programs: Option<PathBuf>,
    /// Write all figures to this file, as JSON
    #[arg(long, global = true)]
    pub json: Option<PathBuf>,
    /// Write diagrams of the figures to this file, as SVG
    #[arg(long, global = true)]
    pub plot: Option<PathBuf>,
}

/// The measurements.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Orders in comparison to the same writes by a raw client
    #[command(flatten)]
    Section(Section),
    /// Compare the styles of interaction in a Markdown table; uses --rounds and --seconds
    Compare {
        /// Number of orders that one client places, one after the other
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        orders: u32,
        /// Number of concurrent clients; each client places its next order after the response to the last one
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
        concurrency: u32,
    },
    /// Measure a running demo: time from POST to response, memory of the services
    Demo {
        /// Base URL of the demo
        #[arg(long, default_value = "http://arch.homework")]
        base_url: String,
        /// Number of orders to place, one after the other
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        orders: u32,
    },
}

/// The measurements that are compared with the same writes by a raw client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Section {
    /// All sections, one after the other
    All,
    /// The same writes by the raw client and through the services, with several numbers of clients
    Throughput,
    /// Latency of one client, raw and through the services; then POSTs at fixed rates
    Latency,
    /// Charges per second, in comparison to the maximum rate of PostgreSQL
    Billing,
    /// An operator that starts with many unfinished orders
    Backlog,
    /// The effect of finished orders and of several namespaces
    Growth,
    /// The latency of archive queries for several sizes of the archive
    Archive,
}

impl Options {
    /// Returns the options with the reductions of `--quick`.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        if self.quick {
            self.seconds = self.seconds.min(3);
            self.rounds = 1;
            self.clients.retain(|clients| [1, 32].contains(clients));
            self.rates.retain(|rate| [25, 50].contains(rate));
            self.finished = self.finished.into_iter().map(|orders| orders / 50).collect();
            self.namespaces.retain(|namespaces| *namespaces <= 4);
            self.backlog /= 50;
            self.rows.retain(|rows| *rows <= 10_000);
        }
        self
    }

    /// The duration of each measurement.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The database of sections that need only one.
    pub fn first_database(&self) -> Database {
        self.databases.first().copied().unwrap_or(Database::Postgres)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let options = Options::parse_from(["orders-bench", "throughput", "--clients", "1,32", "--databases", "sqlite"]);
        assert_eq!((options.clients, options.databases), (vec![1, 32], vec![Database::Sqlite]));
    }

    #[test]
    fn quick_reduces_every_option() {
        let options = Options::parse_from(["orders-bench", "all", "--quick"]).shortened();
        assert_eq!((options.rounds, options.seconds, options.backlog), (1, 3, 200));
        assert_eq!(options.finished, [0, 200, 1000]);
        assert_eq!(options.clients, [1, 32]);
    }
}
