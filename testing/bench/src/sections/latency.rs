//! Measures the latency of one client, raw and through the services; then orders at fixed rates.

use std::time::Duration;

use anyhow::{Context, Result};

use super::loops::{measure_orders, run_order_loop, run_raw_loop};
use crate::bench::Bench;
use crate::cost::{Side, measure, report_rate_and_times};
use crate::environment::{Environment, EnvironmentOptions};
use crate::load::{self, Load};
use crate::progress::print_progress;

/// The table of one client.
pub const TABLE: &str = "latency, one client";

/// The column of that table.
pub const ONE: &str = "1 client";

/// The row with the ratio of the medians.
pub const RATIO_P50: &str = "POST to response over a raw pair: p50";

/// The row with the ratio of the 99th percentiles.
pub const RATIO_P99: &str = "POST to response over a raw pair: p99";

/// The table of fixed rates.
pub const OPEN: &str = "latency, open loop";

/// The row with the responses per second.
pub const RESPONSE_RATE: &str = "responses per second";

/// The time after which the two sides alternate, so that a period in which the machine is slow affects both.
const TURN: Duration = Duration::from_secs(1);

/// The minimum ratio of responses to requests. Below it the open loop is saturated, and higher rates give no new information.
const MIN_RESPONSE_RATIO: f64 = 0.95;

/// Runs the section. Each round uses a new control plane.
///
/// # Errors
/// If a process does not start or respond.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let options = bench.options.clone();
    for round in 1..=options.rounds {
        let name = format!("latency-{round}");
        let environment = bench.start(&name, options.first_database(), EnvironmentOptions::default()).await?;
        measure_one_client(bench, &environment).await.with_context(|| name.clone())?;
        measure_open_loop(bench, &environment).await.with_context(|| name.clone())?;
        bench.stop(&name, environment);
    }
    Ok(())
}

async fn measure_one_client(bench: &mut Bench, environment: &Environment) -> Result<()> {
    let duration = bench.options.duration();
    let (mut pair, mut post) = (Load::default(), Load::default());
    while pair.took < duration {
        pair.add(&run_raw_loop(environment, 1, TURN, false, false).await?);
        post.add(&run_order_loop(environment, 1, TURN).await?);
    }
    report_rate_and_times(&pair, &mut bench.report, TABLE, Side::Raw, ONE);
    report_rate_and_times(&post, &mut bench.report, TABLE, Side::Services, ONE);
    measure_orders(environment, 1, duration).await?.report_cost(&mut bench.report, TABLE, Side::Services, ONE);
    for (row, share) in [(RATIO_P50, 0.5), (RATIO_P99, 0.99)] {
        bench.report.add(TABLE, row, ONE, post.times.percentile(share) / pair.times.percentile(share));
    }
    let [pair, post] = [pair, post].map(|load| load.times.percentile(0.5));
    print_progress(&format!("latency: raw pair p50 {pair:.1} ms, POST to response p50 {post:.1} ms"));
    Ok(())
}

async fn measure_open_loop(bench: &mut Bench, environment: &Environment) -> Result<()> {
    let clients = bench.options.clients.iter().copied().max().unwrap_or(1);
    for rate in bench.options.rates.clone() {
        let customers = environment.customers.clone();
        let work = move |number: u32| {
            let customers = customers.clone();
            async move { customers.measure_order(number % clients).await }
        };
        let measured = measure(environment, Side::Services, load::run_open_loop(rate, bench.options.duration(), work)).await?;
        let (column, response_rate) = (format!("{rate}/s"), measured.load.rate());
        print_progress(&format!(
            "latency: {rate}/s, {response_rate:.0} responses/s, p50 {:.1} ms",
            measured.load.times.percentile(0.5)
        ));
        bench.report.add(OPEN, RESPONSE_RATE, &column, response_rate);
        for (row, share) in [("p50, ms", 0.5), ("p99, ms", 0.99), ("p99.9, ms", 0.999)] {
            bench.report.add(OPEN, row, &column, measured.load.times.percentile(share));
        }
        bench.report.add(OPEN, "responses before the outcome (202)", &column, environment.customers.take_undecided());
        bench.report.add(OPEN, crate::cost::CPU_OF_ALL, &column, measured.cpu_of_all());
        if measured.load.is_saturated || response_rate < MIN_RESPONSE_RATIO * f64::from(rate) {
            print_progress(&format!("latency: {rate}/s is more than the services can process"));
            break;
        }
    }
    Ok(())
}
