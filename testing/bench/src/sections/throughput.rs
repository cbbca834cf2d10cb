//! The same writes, raw and through the services, at several numbers of clients.

use anyhow::{Context, Result};

use super::{placed, raw};
use crate::bench::{Bench, say};
use crate::cost::{Side, report_speed};
use crate::site::Wanted;

/// The row with the ratio of the two rates.
pub const RATIO: &str = "end to end over the ceiling";

/// The table of a database.
pub fn table(database: &str) -> String {
    format!("throughput, {database}")
}

/// The column of so many clients.
pub fn column(clients: u32) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

/// Each round on a control plane of its own; the two sides alternate, and who begins does, too.
///
/// # Errors
/// When something does not start or answer.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let options = bench.options.clone();
    let wanted = Wanted { removal: options.removal, ..Wanted::default() };
    for round in 1..=options.rounds {
        for database in &options.databases {
            let (name, table) = (format!("throughput-{database}-{round}"), table(database.as_str()));
            let site = bench.open(&name, *database, wanted).await?;
            for clients in &options.clients {
                let column = column(*clients);
                let mut rates = [0.0; 2];
                let sides = if round % 2 == 1 { [Side::Raw, Side::Services] } else { [Side::Services, Side::Raw] };
                for side in sides {
                    let measured = match side {
                        Side::Raw => raw(&site, *clients, options.duration(), true, options.removal).await,
                        Side::Services => placed(&site, *clients, options.duration()).await,
                    };
                    let measured = measured.with_context(|| format!("{name}, {column}, {}", side.as_str()))?;
                    let rate = measured.load.rate();
                    say(&format!("{name}, {column}, {}: {rate:.0} orders/s", side.as_str()));
                    report_speed(&measured.load, &mut bench.report, &table, side, &column);
                    measured.report_cost(&mut bench.report, &table, side, &column);
                    if side == Side::Services {
                        bench.report.add(&table, "end to end: answered undecided (202)", &column, site.customers.undecided());
                        measured.report_memory(&mut bench.report, &table, &column);
                    }
                    rates[usize::from(side == Side::Services)] = rate;
                }
                // The operator removes orders long after their answers: of the rates, one has it in it and the other not.
                if !options.removal {
                    bench.report.add(&table, RATIO, &column, rates[1] / rates[0]);
                }
            }
            bench.close(&name, site);
        }
    }
    Ok(())
}
