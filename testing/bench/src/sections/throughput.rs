//! Measures the throughput of the same writes, raw and through the services, with several numbers of clients.

use anyhow::{Context, Result};

use super::loops::{measure_orders, measure_raw};
use crate::bench::Bench;
use crate::cost::{Side, report_rate_and_times};
use crate::environment::EnvironmentOptions;
use crate::progress::print_progress;

/// The row with the ratio of the two rates.
pub const RATIO: &str = "end to end over the ceiling";

/// The table of a database.
pub fn table(database: &str) -> String {
    format!("throughput, {database}")
}

/// The column of this number of clients.
pub fn column(clients: u32) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

/// Runs the section. Each round uses a new control plane. The two sides alternate, and so does the side that starts.
///
/// # Errors
/// If a process does not start or respond.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let options = bench.options.clone();
    let settings = EnvironmentOptions { removal: options.removal, ..EnvironmentOptions::default() };
    for round in 1..=options.rounds {
        for database in &options.databases {
            let (name, table) = (format!("throughput-{database}-{round}"), table(database.as_str()));
            let environment = bench.start(&name, *database, settings).await?;
            for clients in &options.clients {
                let column = column(*clients);
                let mut rates = [0.0; 2];
                let sides = if round % 2 == 1 { [Side::Raw, Side::Services] } else { [Side::Services, Side::Raw] };
                for side in sides {
                    let measured = match side {
                        Side::Raw => measure_raw(&environment, *clients, options.duration(), true, options.removal).await,
                        Side::Services => measure_orders(&environment, *clients, options.duration()).await,
                    };
                    let measured = measured.with_context(|| format!("{name}, {column}, {}", side.as_str()))?;
                    let rate = measured.load.rate();
                    print_progress(&format!("{name}, {column}, {}: {rate:.0} orders/s", side.as_str()));
                    report_rate_and_times(&measured.load, &mut bench.report, &table, side, &column);
                    measured.report_cost(&mut bench.report, &table, side, &column);
                    if side == Side::Services {
                        bench.report.add(
                            &table,
                            "end to end: responses before the outcome (202)",
                            &column,
                            environment.customers.take_undecided(),
                        );
                        measured.report_memory(&mut bench.report, &table, &column);
                    }
                    rates[usize::from(side == Side::Services)] = rate;
                }
                // The operator deletes orders long after their responses. The raw rate includes deletion and the other does not,
                // so the rates are not comparable.
                if !options.removal {
                    bench.report.add(&table, RATIO, &column, rates[1] / rates[0]);
                }
            }
            bench.stop(&name, environment);
        }
    }
    Ok(())
}
