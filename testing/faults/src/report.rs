//! The report of all cases and scenarios, with their results.

use std::{collections::BTreeMap, time::Instant};

use orders_shop::Interaction;

use crate::{
    case::{Case, Verdict},
    fault::Fault,
};

/// Counts of the results, and descriptions of the failures.
#[derive(Debug)]
pub struct Summary {
    started: Instant,
    columns: BTreeMap<Fault, BTreeMap<String, usize>>,
    tried: usize,
    violations: usize,
    unsettled: usize,
    not_reached: usize,
    failures: Vec<String>,
}

impl Default for Summary {
    fn default() -> Self {
        Summary {
            started: Instant::now(),
            columns: BTreeMap::new(),
            tried: 0,
            violations: 0,
            unsettled: 0,
            not_reached: 0,
            failures: Vec::new(),
        }
    }
}

impl Summary {
    /// Adds a case, and prints it if it failed.
    pub fn add(&mut self, case: &Case, verdict: &Verdict, seed: u64) {
        *self.columns.entry(case.fault).or_default().entry(case.effect.channel.to_string()).or_default() += 1;
        let text = format!("effect {} ({}), {}, seed {seed}", case.number, case.effect, case.fault);
        self.count(&text, verdict, &format!("make test-faults CASE={}", case.name()));
    }

    /// Adds a scenario, and prints it.
    pub fn add_scenario(&mut self, name: &str, interaction: Interaction, seed: u64, verdict: &Verdict) {
        if *verdict == Verdict::Holds {
            println!("  {} {name}: holds", interaction.as_str());
        }
        self.count(name, verdict, &format!("make test-faults SCENARIO={name} INTERACTION={} SEED={seed}", interaction.as_str()));
    }

    fn count(&mut self, text: &str, verdict: &Verdict, command: &str) {
        self.tried += 1;
        let (result, reason) = match verdict {
            Verdict::Holds => return,
            Verdict::Violated(reason) => ("VIOLATION", reason.as_str()),
            Verdict::Unsettled(reason) => ("UNSETTLED", reason.as_str()),
            Verdict::NotReached => ("NOT REACHED", "the run had no such effect"),
        };
        match verdict {
            Verdict::Violated(_) => self.violations += 1,
            Verdict::Unsettled(_) => self.unsettled += 1,
            _ => self.not_reached += 1,
        }
        let failure = format!("{result}: {text}\n  {}\n  repeat: {command}", reason.trim_end().replace('\n', "\n  "));
        println!("{failure}");
        self.failures.push(failure);
    }

    /// Adds the results of another summary, which ran in parallel.
    pub fn merge(&mut self, other: Summary) {
        for (fault, channels) in other.columns {
            let column = self.columns.entry(fault).or_default();
            channels.into_iter().for_each(|(channel, count)| *column.entry(channel).or_default() += count);
        }
        self.tried += other.tried;
        self.violations += other.violations;
        self.unsettled += other.unsettled;
        self.not_reached += other.not_reached;
        self.failures.extend(other.failures);
    }

    /// The number of cases so far.
    pub fn tried(&self) -> usize {
        self.tried
    }

    /// The number of cases in which a guarantee did not hold.
    pub fn violations(&self) -> usize {
        self.violations
    }

    /// The number of failed cases: violated, unsettled or not reached.
    pub fn failed(&self) -> usize {
        self.violations + self.unsettled + self.not_reached
    }

    /// Prints the number of cases of each fault on each channel, all failures again, and the totals.
    pub fn print(&self) {
        let mut channels: Vec<&String> = self.columns.values().flat_map(BTreeMap::keys).collect();
        channels.sort();
        channels.dedup();
        for channel in channels {
            let counts: Vec<String> = self
                .columns
                .iter()
                .filter_map(|(fault, channels)| channels.get(channel).map(|count| format!("{fault} {count}")))
                .collect();
            println!("  {channel}: {}", counts.join(", "));
        }
        // Failures are hard to find among hundreds of lines, and often only the end of a long log is kept.
        for failure in &self.failures {
            println!("{failure}");
        }
        let missed = if self.not_reached > 0 { format!(", not reached {}", self.not_reached) } else { String::new() };
        println!(
            "faults tried {}, violations {}, unsettled {}{missed} ({} s)",
            self.tried,
            self.violations,
            self.unsettled,
            self.started.elapsed().as_secs()
        );
    }
}
