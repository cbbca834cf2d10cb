//! Measures an operator that starts with many unfinished orders.

use std::time::Instant;

use anyhow::{Context, Result};

use super::growth::{MEMORY_OVER_LIMIT, over_limit};
use crate::bench::Bench;
use crate::cost::{Measurement, Side};
use crate::environment::{Environment, EnvironmentOptions};
use crate::load::{self, Load};
use crate::processes::Snapshot;
use crate::progress::print_progress;

/// The table.
pub const TABLE: &str = "backlog";

/// The number of clients that write the unfinished orders.
const WRITERS: u32 = 32;

/// Runs the section. Each round uses a new control plane.
///
/// # Errors
/// If a process does not start or respond, or the orders are not finished in time.
pub async fn run(bench: &mut Bench) -> Result<()> {
    for round in 1..=bench.options.rounds {
        let name = format!("backlog-{round}");
        let mut environment = bench.start(&name, bench.options.first_database(), EnvironmentOptions::default()).await?;
        measure_backlog(bench, &mut environment).await.with_context(|| name.clone())?;
        bench.stop(&name, environment);
    }
    Ok(())
}

async fn measure_backlog(bench: &mut Bench, environment: &mut Environment) -> Result<()> {
    let orders = bench.options.backlog;
    environment.stop_operator().await?;
    let writer = environment.writer.within(&environment.stack.namespace);
    let written = load::run_all(WRITERS, orders, move |worker| {
        let writer = writer.clone();
        async move { writer.write_unfinished(worker).await }
    })
    .await?;
    print_progress(&format!("backlog: {orders} orders written, {:.0}/s; starting the operator", written.rate()));

    let counts = environment.counters()?.read().await?;
    let before = Snapshot::take()?;
    let started = Instant::now();
    environment.start_operator().await?;
    environment.wait_notified(orders as f64).await?;
    let took = started.elapsed();
    environment.wait_settled(orders as f64).await?;
    let after = Snapshot::take()?;
    let counters = environment.counters()?;
    counters.wait_until_reported().await;
    let counts = counters.read().await?.since(&counts);

    let column = format!("{orders} unfinished");
    let load = Load { took, ..Load::default() };
    let measured = Measurement::new(load, orders as f64, &before, after, counts);
    let (resident, peak) = measured.after.memory("operator");
    print_progress(&format!("backlog: finished in {:.1} s, operator's peak {peak:.1} MiB", took.as_secs_f64()));
    let mut add = |row: &str, value: f64| bench.report.add(TABLE, row, &column, value);
    add("until the last customer is notified, s", took.as_secs_f64());
    add("orders a second", orders as f64 / took.as_secs_f64());
    add("RSS of the operator, MiB", resident);
    add("peak RSS of the operator, MiB", peak);
    add(MEMORY_OVER_LIMIT, over_limit(peak, environment.live_orders().await?));
    measured.report_cost(&mut bench.report, TABLE, Side::Services, &column);
    measured.report_memory(&mut bench.report, TABLE, &column);
    Ok(())
}
