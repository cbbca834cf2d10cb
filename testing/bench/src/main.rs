//! `orders-bench` measures orders in comparison to the Kubernetes API server itself.
//!
//! Most of the cost of an order is the cost of its writes to the Kubernetes API. Therefore the
//! benchmark measures the same writes twice: by a raw client, and through the services.
//! `docs/explanation/performance.md` describes the method and the results.

#![deny(missing_docs)]

mod bench;
mod compare;
mod cost;
mod counters;
mod customers;
mod demo;
mod environment;
mod exposition;
mod goal;
mod goals;
mod load;
mod options;
mod order_template;
mod plot;
mod processes;
mod progress;
mod report;
mod sections;
mod statistics;
mod writer;

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Parser;
use orders_testbed::Cache;

use crate::bench::Bench;
use crate::options::{Command, Options, Section};
use crate::progress::print_progress;
use crate::report::About;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse().shortened();
    let cache = Cache::locate()?;
    // Two benchmarks at the same time would disturb each other.
    let _lock = cache.lock("bench").await?;
    match options.command.clone() {
        Command::Section(section) => run_section(&cache, &options, section).await,
        Command::Compare { orders, concurrency } => {
            let comparison = compare::ComparisonOptions::new(&options, orders, concurrency)?;
            compare::run(&cache, &comparison, async { Ok(tokio::signal::ctrl_c().await?) }).await
        }
        Command::Demo { base_url, orders } => demo::run(base_url.trim_end_matches('/'), orders).await,
    }
}

/// Measures a section and reports the results: as text, and in the files that the options name.
async fn run_section(cache: &Cache, options: &Options, section: Section) -> Result<()> {
    let directory = cache.run("bench");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let about = describe_run(options)?;
    let mut bench = Bench::new(options.clone(), &directory);
    let result = tokio::select! {
        result = sections::run(&mut bench, section) => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; all processes that were started are stopped"),
    };
    // The results before a failure are reported, too.
    let goals = goals::goals(&bench.report);
    print!("{}", bench.report.to_text(&about, &goals));
    if let Some(file) = &options.json {
        fs::write(file, bench.report.to_json(&about, &goals)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &options.plot {
        fs::write(file, plot::svg(&bench.report)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if result.is_err() {
        print_progress(&format!("logs: {}", directory.display()));
    }
    result
}

fn describe_run(options: &Options) -> Result<About> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(About {
        began: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        cores: std::thread::available_parallelism()?.get(),
        kernel: kernel.trim().to_owned(),
        rounds: options.rounds,
        seconds: options.seconds,
        quick: options.quick,
    })
}
