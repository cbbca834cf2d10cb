//! Measures costs and memory with finished orders present, and with several namespaces.

use std::time::Instant;

use anyhow::{Context, Result};

use super::loops::{measure_orders, measure_raw};
use crate::bench::Bench;
use crate::cost::{Side, report_rate_and_times};
use crate::environment::{Environment, EnvironmentOptions};
use crate::load;
use crate::progress::print_progress;

/// The table by finished orders.
pub const FINISHED: &str = "growth, finished orders";

/// The table by namespaces.
pub const NAMESPACES: &str = "growth, namespaces";

/// The row with the ratio of the cost of an order to the cost with the fewest finished orders.
pub const COST_RATIO: &str = "CPU an order over that with the fewest finished orders";

/// The row with the ratio of the operator's peak memory to its limit.
pub const MEMORY_OVER_LIMIT: &str = "operator's peak memory over its limit";

/// The number of clients of all measurements, and of the clients that write the orders in advance.
const CLIENTS: u32 = 32;

/// The ratio of the peak memory in MiB to its limit: 30 MiB, and 4 KiB for each live order.
pub fn over_limit(peak: f64, live: f64) -> f64 {
    peak / (30.0 + live * 4.0 / 1024.0)
}

/// Runs the section. Each round uses new control planes.
///
/// # Errors
/// If a process does not start or respond.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let options = bench.options.clone();
    for round in 1..=options.rounds {
        let name = format!("growth-{round}");
        let mut environment = bench.start(&name, options.first_database(), EnvironmentOptions::default()).await?;
        let mut fewest = None;
        for finished in &options.finished {
            measure_with_finished(bench, &mut environment, *finished, &mut fewest)
                .await
                .with_context(|| format!("{name}, {finished}"))?;
        }
        bench.stop(&name, environment);
        for namespaces in &options.namespaces {
            let name = format!("growth-{round}-namespaces-{namespaces}");
            let settings = EnvironmentOptions { namespaces: *namespaces, ..EnvironmentOptions::default() };
            let environment = bench.start(&name, options.first_database(), settings).await?;
            measure_with_namespaces(bench, &environment, *namespaces).await.with_context(|| name.clone())?;
            bench.stop(&name, environment);
        }
    }
    Ok(())
}

async fn measure_with_finished(
    bench: &mut Bench,
    environment: &mut Environment,
    finished: usize,
    fewest: &mut Option<f64>,
) -> Result<()> {
    let column = format!("{finished} finished");
    let present = environment.live_orders().await? as usize;
    if finished > present {
        // A running operator would process these orders as new ones before their status is written.
        environment.stop_operator().await?;
        let writer = environment.writer.within(&environment.stack.namespace);
        let written = load::run_all(CLIENTS, finished - present, move |worker| {
            let writer = writer.clone();
            async move { writer.write_finished(worker).await.map(drop) }
        })
        .await?;
        print_progress(&format!("growth: {finished} finished orders present, written at {:.0}/s", written.rate()));
        let started = Instant::now();
        environment.start_operator().await?;
        environment.wait_archived(finished).await?;
        let row = "from the operator's start until all is archived, s";
        bench.report.add(FINISHED, row, &column, started.elapsed().as_secs_f64());
    }
    let ceiling = measure_raw(environment, CLIENTS, bench.options.duration(), true, false).await?;
    let placed = measure_orders(environment, CLIENTS, bench.options.duration()).await?;
    print_progress(&format!("growth: {column}: {:.0} orders/s of {:.0}", placed.load.rate(), ceiling.load.rate()));
    report_rate_and_times(&ceiling.load, &mut bench.report, FINISHED, Side::Raw, &column);
    report_rate_and_times(&placed.load, &mut bench.report, FINISHED, Side::Services, &column);
    bench.report.add(FINISHED, super::throughput::RATIO, &column, placed.load.rate() / ceiling.load.rate());
    let cost = placed.cpu_of_all();
    bench.report.add(FINISHED, COST_RATIO, &column, cost / *fewest.get_or_insert(cost));
    let peak = placed.after.memory("operator").1;
    bench.report.add(FINISHED, MEMORY_OVER_LIMIT, &column, over_limit(peak, environment.live_orders().await?));
    ceiling.report_cost(&mut bench.report, FINISHED, Side::Raw, &column);
    placed.report_cost(&mut bench.report, FINISHED, Side::Services, &column);
    placed.report_memory(&mut bench.report, FINISHED, &column);
    Ok(())
}

/// Measures with several namespaces. Each has its own api-server, since an api-server serves one namespace; one operator
/// processes all of them.
async fn measure_with_namespaces(bench: &mut Bench, environment: &Environment, namespaces: u32) -> Result<()> {
    let column = format!("{namespaces} namespace{}", if namespaces == 1 { "" } else { "s" });
    let placed = measure_orders(environment, CLIENTS, bench.options.duration()).await?;
    print_progress(&format!("growth: {column}: {:.0} orders/s", placed.load.rate()));
    report_rate_and_times(&placed.load, &mut bench.report, NAMESPACES, Side::Services, &column);
    placed.report_cost(&mut bench.report, NAMESPACES, Side::Services, &column);
    placed.report_memory(&mut bench.report, NAMESPACES, &column);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_may_grow_with_the_live_orders() {
        assert_eq!(over_limit(30.0, 0.0), 1.0);
        assert_eq!(over_limit(70.0, 10_240.0), 1.0);
    }
}
