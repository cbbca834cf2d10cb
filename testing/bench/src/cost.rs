//! A measurement: the load, its rate and times, and the costs of each process.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::counters::{CREATES, Counts, OTHER_WRITES, STATUS_WRITES};
use crate::environment::Environment;
use crate::load::Load;
use crate::processes::{Snapshot, UNCOUNTED};
use crate::report::Report;

/// The row with the CPU time of all processes that process orders.
pub const CPU_OF_ALL: &str = "CPU of all but the load generator, ms an order";

/// The row with the creates, status writes and other writes of orders, without events.
pub const WRITES: &str = "requests: writes of the order itself";

/// The result of a measurement.
pub struct Measurement {
    /// The rate and the times.
    pub load: Load,
    /// The number of orders by which the costs are divided.
    orders: f64,
    /// CPU seconds of each process.
    cpu: BTreeMap<String, f64>,
    /// The servers' counters.
    counts: Counts,
    /// All processes immediately after the measurement.
    pub after: Snapshot,
}

/// The side that is measured. Unlike the raw client, the services still have work to do after the last response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The raw client.
    Raw,
    /// The services.
    Services,
}

impl Side {
    /// The name of the side in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Raw => "ceiling",
            Side::Services => "end to end",
        }
    }
}

/// Adds rate and times to the report.
pub fn report_rate_and_times(load: &Load, report: &mut Report, table: &str, side: Side, column: &str) {
    let mut add = |what: &str, value: f64| report.add(table, &format!("{}: {what}", side.as_str()), column, value);
    add("orders a second", load.rate());
    for (name, share) in [("p50, ms", 0.5), ("p99, ms", 0.99), ("p99.9, ms", 0.999)] {
        add(name, load.times.percentile(share));
    }
}

/// Runs a load and measures its costs, until the last event of the last order.
///
/// # Errors
/// If the load fails, or a server does not respond.
pub async fn measure(environment: &Environment, side: Side, work: impl Future<Output = Result<Load>>) -> Result<Measurement> {
    let counters = environment.counters()?;
    let counts = counters.read().await?;
    let notified = environment.notified_count().await?;
    let before = Snapshot::take()?;
    let load = work.await?;
    if side == Side::Services {
        environment.wait_settled(notified + load.times.count() as f64).await?;
    }
    let after = Snapshot::take()?;
    if side == Side::Services {
        counters.wait_until_reported().await;
    }
    let counts = counters.read().await?.since(&counts);
    let orders = load.times.count() as f64;
    Ok(Measurement::new(load, orders, &before, after, counts))
}

impl Measurement {
    /// The costs of a number of orders between two moments.
    pub fn new(load: Load, orders: f64, before: &Snapshot, after: Snapshot, counts: Counts) -> Self {
        Measurement { load, orders, cpu: after.cpu_since(before), counts, after }
    }

    /// The CPU time of one process, in milliseconds for each order.
    pub fn cpu_of(&self, name: &str) -> f64 {
        self.per_order(self.cpu.get(name).copied().unwrap_or_default()) * 1000.0
    }

    /// The value of a counter, divided by the number of orders.
    pub fn count_of(&self, name: &str) -> f64 {
        self.per_order(self.counts.get(name))
    }

    /// The CPU time of all processes that process orders, in milliseconds for each order.
    pub fn cpu_of_all(&self) -> f64 {
        let counted = self.cpu.iter().filter(|(name, _)| !UNCOUNTED.contains(&name.as_str()));
        counted.map(|(_, seconds)| self.per_order(*seconds) * 1000.0).sum()
    }

    /// Adds the costs of each order to the report.
    pub fn report_cost(&self, report: &mut Report, table: &str, side: Side, column: &str) {
        let mut add = |what: &str, value: f64| report.add(table, &format!("{}: {what}", side.as_str()), column, value);
        add(CPU_OF_ALL, self.cpu_of_all());
        for (name, seconds) in &self.cpu {
            let share = self.per_order(*seconds) * 1000.0;
            // An idle process uses less than this while others work.
            if share >= 0.005 {
                add(&format!("CPU of {name}, ms an order"), share);
            }
        }
        add(WRITES, [CREATES, STATUS_WRITES, OTHER_WRITES].iter().map(|name| self.per_order(self.counts.get(name))).sum());
        for (name, count) in &self.counts.0 {
            add(name, self.per_order(*count));
        }
    }

    /// Adds the current memory of each process to the report.
    pub fn report_memory(&self, report: &mut Report, table: &str, column: &str) {
        for (name, sample) in &self.after.0 {
            report.add(table, &format!("RSS of {name}, MiB"), column, sample.resident);
            if sample.peak > 0.0 {
                report.add(table, &format!("peak RSS of {name}, MiB"), column, sample.peak);
            }
        }
    }

    fn per_order(&self, total: f64) -> f64 {
        total / self.orders.max(1.0)
    }
}
