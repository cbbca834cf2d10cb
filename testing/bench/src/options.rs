//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use orders_shop::Database;

/// Orders measured against the API server itself.
#[derive(Clone, Debug, Parser)]
#[command(version, about, args_override_self = true)]
pub struct Options {
    /// What is measured
    #[command(subcommand)]
    pub command: Command,
    /// Clients at once, each with its next order when the last is answered
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1, 8, 32, 128], value_parser = clap::value_parser!(u32).range(1..=512))]
    pub clients: Vec<u32>,
    /// Seconds of each measurement
    #[arg(long, global = true, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// How often all of it is measured; each time on a new control plane
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Orders a second of the open loop, in rising order; it ends where the answers do not keep up
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [10, 25, 50, 75, 100, 125, 150, 200, 300], value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rates: Vec<u32>,
    /// Databases of billing, notify and the archive; sections that need only one take the first
    #[arg(long, global = true, value_delimiter = ',', value_enum, default_values_t = [Database::Postgres, Database::Sqlite])]
    pub databases: Vec<Database>,
    /// Finished orders that are present, in rising order
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [0, 10_000, 50_000])]
    pub finished: Vec<usize>,
    /// Namespaces with orders
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1, 4, 16], value_parser = clap::value_parser!(u32).range(1..=64))]
    pub namespaces: Vec<u32>,
    /// Unfinished orders that are present when the operator starts
    #[arg(long, global = true, default_value_t = 10_000)]
    pub backlog: usize,
    /// Rows of the archive, in rising order
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    pub rows: Vec<u64>,
    /// Pools of connections that the raw client spreads its requests over
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub pools: u32,
    /// Give each POST an Idempotency-Key
    #[arg(long, global = true)]
    pub keyed: bool,
    /// Remove orders as well: on the one side right after their events, on the other by the operator; then the costs are compared and not the rates
    #[arg(long, global = true)]
    pub removal: bool,
    /// A short run that shows that it works; its figures say little
    #[arg(long, global = true)]
    pub quick: bool,
    /// Directory with the services' programs, built with --release; beside this one if not given
    #[arg(long, global = true)]
    pub programs: Option<PathBuf>,
    /// Write all figures to this file
    #[arg(long, global = true)]
    pub json: Option<PathBuf>,
    /// Draw the figures into this file
    #[arg(long, global = true)]
    pub plot: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Orders beside the same writes made raw
    #[command(flatten)]
    Section(Section),
    /// The styles of interaction side by side, as a table in Markdown; with --rounds and --seconds
    Compare {
        /// How many orders one client places, one after the other
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        orders: u32,
        /// How many clients place orders at once, each its next one when the last is answered
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
        together: u32,
    },
    /// A running demo: time from POST to answer, memory of the services
    Demo {
        /// Where it answers
        #[arg(long, default_value = "http://arch.homework")]
        base_url: String,
        /// How many orders to place, one after the other
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        orders: u32,
    },
}

/// What is measured beside the same writes made raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Section {
    /// Everything, one after the other
    All,
    /// The same writes raw and through the services, at several numbers of clients
    Throughput,
    /// One client, raw and through the services; then POSTs at fixed rates
    Latency,
    /// Charges a second, and what PostgreSQL does at most
    Billing,
    /// An operator that starts with many unfinished orders
    Backlog,
    /// With finished orders present, and in several namespaces
    Growth,
    /// Queries of the archive by its size
    Archive,
}

impl Options {
    /// With what `--quick` cuts short.
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

    /// How long each measurement takes.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The database where one is enough.
    pub fn first_database(&self) -> Database {
        self.databases.first().copied().unwrap_or(Database::Postgres)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
    }

    #[test]
    fn lists_are_given_with_commas() {
        let options = Options::parse_from(["orders-bench", "throughput", "--clients", "1,32", "--databases", "sqlite"]);
        assert_eq!((options.clients, options.databases), (vec![1, 32], vec![Database::Sqlite]));
    }

    #[test]
    fn quick_is_short_in_every_respect() {
        let options = Options::parse_from(["orders-bench", "all", "--quick"]).shortened();
        assert_eq!((options.rounds, options.seconds, options.backlog), (1, 3, 200));
        assert_eq!(options.finished, [0, 200, 1000]);
        assert_eq!(options.clients, [1, 32]);
    }
}
