//! Measures the latency of one client, raw and through the services; then orders at fixed rates.

use std::time::Duration;

use anyhow::{Context, Result};

use super::loops::{placed, placed_loop, raw_loop};
use crate::bench::Bench;
use crate::cost::{Side, measured, report_speed};
use crate::load::{self, Load};
use crate::progress::say;
use crate::site::{Site, Wanted};

/// The table of one client.
pub const TABLE: &str = "latency, one client";

/// The column of that table.
pub const ONE: &str = "1 client";

/// The row with the ratio of the medians.
pub const RATIO_P50: &str = "POST to answer over a raw pair: p50";

/// The row with the ratio of the 99th percentiles.
pub const RATIO_P99: &str = "POST to answer over a raw pair: p99";

/// The table of fixed rates.
pub const OPEN: &str = "latency, open loop";

/// The row with the responses per second.
pub const ANSWERED: &str = "answered a second";

/// The time after which the two sides alternate, so that a period in which the machine is slow affects both.
const TURN: Duration = Duration::from_secs(1);

/// The minimum ratio of responses to requests. Below it the open loop is saturated, and higher rates give no new information.
const KEEPS_UP: f64 = 0.95;

/// Runs the section. Each round uses a new control plane.
///
/// # Errors
/// If a process does not start or respond.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let options = bench.options.clone();
    for round in 1..=options.rounds {
        let name = format!("latency-{round}");
        let site = bench.open(&name, options.first_database(), Wanted::default()).await?;
        one_client(bench, &site).await.with_context(|| name.clone())?;
        open_loop(bench, &site).await.with_context(|| name.clone())?;
        bench.close(&name, site);
    }
    Ok(())
}

async fn one_client(bench: &mut Bench, site: &Site) -> Result<()> {
    let duration = bench.options.duration();
    let (mut pair, mut post) = (Load::default(), Load::default());
    while pair.took < duration {
        pair.add(&raw_loop(site, 1, TURN, false, false).await?);
        post.add(&placed_loop(site, 1, TURN).await?);
    }
    report_speed(&pair, &mut bench.report, TABLE, Side::Raw, ONE);
    report_speed(&post, &mut bench.report, TABLE, Side::Services, ONE);
    placed(site, 1, duration).await?.report_cost(&mut bench.report, TABLE, Side::Services, ONE);
    for (row, share) in [(RATIO_P50, 0.5), (RATIO_P99, 0.99)] {
        bench.report.add(TABLE, row, ONE, post.times.percentile(share) / pair.times.percentile(share));
    }
    let [pair, post] = [pair, post].map(|load| load.times.percentile(0.5));
    say(&format!("latency: raw pair p50 {pair:.1} ms, POST to answer p50 {post:.1} ms"));
    Ok(())
}

async fn open_loop(bench: &mut Bench, site: &Site) -> Result<()> {
    let clients = bench.options.clients.iter().copied().max().unwrap_or(1);
    for rate in bench.options.rates.clone() {
        let customers = site.customers.clone();
        let work = move |number: u32| {
            let customers = customers.clone();
            async move { customers.place(number % clients).await }
        };
        let measured = measured(site, Side::Services, load::open(rate, bench.options.duration(), work)).await?;
        let (column, answered) = (format!("{rate}/s"), measured.load.rate());
        say(&format!("latency: {rate}/s, {answered:.0} answered, p50 {:.1} ms", measured.load.times.percentile(0.5)));
        bench.report.add(OPEN, ANSWERED, &column, answered);
        for (row, share) in [("p50, ms", 0.5), ("p99, ms", 0.99), ("p99.9, ms", 0.999)] {
            bench.report.add(OPEN, row, &column, measured.load.times.percentile(share));
        }
        bench.report.add(OPEN, "answered undecided (202)", &column, site.customers.undecided());
        bench.report.add(OPEN, crate::cost::CPU_OF_ALL, &column, measured.cpu_of_all());
        if measured.load.gave_up || answered < KEEPS_UP * f64::from(rate) {
            say(&format!("latency: {rate}/s is more than it takes"));
            break;
        }
    }
    Ok(())
}
