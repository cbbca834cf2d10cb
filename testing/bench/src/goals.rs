//! Performance goals, compared with the measured values, without I/O.

use crate::cost::WRITES;
use crate::counters::REMOVALS;
use crate::goal::Goal;
use crate::report::Report;
use crate::sections::{backlog, billing, growth, latency, throughput};

/// All goals, with their values in this report.
pub fn goals(report: &Report) -> Vec<Goal> {
    let (throughput_table, clients) = (throughput::table("postgres"), throughput::column(32));
    let end_to_end = |row: &str| report.median(&throughput_table, &format!("end to end: {row}"), &clients);
    let worst = |table: &str, row: &str| {
        let all = report.columns(table).into_iter().filter_map(|column| report.median(table, row, column));
        all.max_by(f64::total_cmp)
    };
    let memory = [backlog::TABLE, growth::FINISHED].into_iter().filter_map(|table| worst(table, growth::MEMORY_OVER_LIMIT));
    let billing = |column: &str| report.median(billing::TABLE, billing::RATIO, column);
    let latency = |row: &str| report.median(latency::TABLE, row, latency::ONE);
    let mut goals = vec![
        Goal::at_least(
            "end-to-end throughput over the ceiling, same writes, 32 clients",
            0.8,
            report.median(&throughput_table, throughput::RATIO, &clients),
        ),
        Goal::at_most("p50 of POST to response over p50 of a raw pair, one client", 2.0, latency(latency::RATIO_P50)),
        Goal::at_most("p99 of POST to response over p99 of a raw pair, one client", 3.0, latency(latency::RATIO_P99)),
        // Two writes for each order. A few orders in a thousand have more, when a mail is slow.
        Goal::at_most("API writes an order, events and removal apart", 2.01, end_to_end(WRITES)),
        Goal::at_least("billing over pgbench, many accounts", 0.5, billing(billing::MANY)),
        Goal::at_least("billing over pgbench, one hot account", 0.5, billing(billing::HOT)),
        Goal::at_most("operator's peak memory over 30 MiB + 4 KiB a live order, the worst", 1.0, memory.max_by(f64::total_cmp)),
        Goal::at_most(
            "CPU an order with the most finished orders present over that with the fewest",
            1.2,
            report
                .columns(growth::FINISHED)
                .last()
                .and_then(|column| report.median(growth::FINISHED, growth::COST_RATIO, column)),
        ),
    ];
    if let Some(removals) = end_to_end(REMOVALS).filter(|removals| *removals > 0.0) {
        goals.push(Goal::at_most("API writes of an order's removal", 1.01, Some(removals)));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_was_not_measured_is_neither_met_nor_missed() {
        assert!(goals(&Report::default()).iter().all(|goal| goal.is_met().is_none()));
    }

    #[test]
    fn goals_use_the_medians() {
        let mut report = Report::default();
        report.add(&throughput::table("postgres"), throughput::RATIO, &throughput::column(32), 0.79);
        report.add(growth::FINISHED, growth::COST_RATIO, "0 finished", 1.0);
        report.add(growth::FINISHED, growth::COST_RATIO, "50000 finished", 1.1);
        report.add(growth::FINISHED, growth::MEMORY_OVER_LIMIT, "50000 finished", 0.9);
        report.add(backlog::TABLE, growth::MEMORY_OVER_LIMIT, "10000 unfinished", 1.3);
        let met = |what: &str| goals(&report).into_iter().find(|goal| goal.what.contains(what)).unwrap().is_met();
        assert_eq!(met("throughput"), Some(false));
        assert_eq!(met("most finished orders"), Some(true));
        assert_eq!(met("memory"), Some(false), "the worst counts");
        assert_eq!(met("hot account"), None);
    }
}
