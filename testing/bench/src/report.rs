//! The report of the figures, as tables and as JSON, without I/O.

use std::fmt::Write as _;

use serde::Serialize;

use crate::goal::Goal;
use crate::statistics::{median, number, spread};

/// All measured figures.
#[derive(Clone, Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

/// A cell of a table, with one value for each round.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    table: String,
    row: String,
    column: String,
    values: Vec<f64>,
}

/// The machine, and the parameters of the run.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// The start of the run (RFC 3339).
    pub began: String,
    /// The number of cores that the benchmark may use.
    pub cores: usize,
    /// The kernel's version.
    pub kernel: String,
    /// The number of rounds. The figures are medians over the rounds.
    pub rounds: u32,
    /// Seconds of each measurement.
    pub seconds: u64,
    /// Whether this was a short run, whose figures are not meaningful.
    pub quick: bool,
}

impl Report {
    /// Adds a value of one round.
    pub fn add(&mut self, table: &str, row: &str, column: &str, value: f64) {
        let same = |figure: &&mut Figure| figure.table == table && figure.row == row && figure.column == column;
        match self.figures.iter_mut().find(same) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure {
                table: table.to_owned(),
                row: row.to_owned(),
                column: column.to_owned(),
                values: vec![value],
            }),
        }
    }

    /// The median of a cell.
    pub fn median(&self, table: &str, row: &str, column: &str) -> Option<f64> {
        self.find(table, row, column).and_then(|figure| median(&figure.values))
    }

    /// The minimum and the maximum of a cell.
    pub fn spread(&self, table: &str, row: &str, column: &str) -> Option<(f64, f64)> {
        self.find(table, row, column).and_then(|figure| spread(&figure.values))
    }

    fn find(&self, table: &str, row: &str, column: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.table == table && figure.row == row && figure.column == column)
    }

    /// The tables, in the order of measurement.
    pub fn tables(&self) -> Vec<&str> {
        distinct(self.figures.iter().map(|figure| figure.table.as_str()))
    }

    /// The columns of a table.
    pub fn columns(&self, table: &str) -> Vec<&str> {
        distinct(self.figures.iter().filter(|figure| figure.table == table).map(|figure| figure.column.as_str()))
    }

    /// The rows of a table.
    pub fn rows(&self, table: &str) -> Vec<&str> {
        distinct(self.figures.iter().filter(|figure| figure.table == table).map(|figure| figure.row.as_str()))
    }

    /// The report with the goals, as Markdown.
    pub fn to_text(&self, about: &About, goals: &[Goal]) -> String {
        let mut text = format!(
            "{} cores, Linux {}, {} rounds of {} s, begun {}.{}\n\n",
            about.cores,
            about.kernel,
            about.rounds,
            about.seconds,
            about.began,
            if about.quick { " **A short run: its figures are not meaningful.**" } else { "" },
        );
        for table in self.tables() {
            let columns = self.columns(table);
            let _ = writeln!(text, "### {table}\n\n| | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
            for row in self.rows(table) {
                let cells: Vec<String> = columns.iter().map(|column| self.cell(table, row, column)).collect();
                let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
            }
            text.push('\n');
        }
        let _ = writeln!(text, "### goals\n\n| goal | bound | measured | met |\n|---|---|---|---|");
        for goal in goals {
            let met = match goal.is_met() {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "–",
            };
            let measured = goal.measured.map_or_else(|| "not measured".to_owned(), number);
            let _ = writeln!(text, "| {} | {} | {measured} | {met} |", goal.what, goal.bound_in_words());
        }
        text
    }

    /// The median, followed by the minimum and the maximum if they differ.
    fn cell(&self, table: &str, row: &str, column: &str) -> String {
        let (Some(median), Some((least, greatest))) = (self.median(table, row, column), self.spread(table, row, column)) else {
            return "–".to_owned();
        };
        if number(least) == number(greatest) {
            return number(median);
        }
        format!("{} ({}–{})", number(median), number(least), number(greatest))
    }

    /// The report as JSON, for programs.
    ///
    /// # Errors
    /// Never for these types.
    pub fn to_json(&self, about: &About, goals: &[Goal]) -> serde_json::Result<String> {
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                let spread = spread(&figure.values);
                serde_json::json!({
                    "table": figure.table,
                    "row": figure.row,
                    "column": figure.column,
                    "median": median(&figure.values),
                    "least": spread.map(|(least, _)| least),
                    "greatest": spread.map(|(_, greatest)| greatest),
                    "values": figure.values,
                })
            })
            .collect();
        let goals: Vec<_> = goals
            .iter()
            .map(|goal| serde_json::json!({"goal": goal.what, "wanted": goal.bound_in_words(), "measured": goal.measured, "met": goal.is_met()}))
            .collect();
        serde_json::to_string_pretty(&serde_json::json!({"about": about, "figures": figures, "goals": goals}))
    }
}

fn distinct<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { began: "2026-01-01T00:00:00Z".into(), cores: 2, kernel: "6".into(), rounds: 3, seconds: 10, quick: true }
    }

    fn report() -> Report {
        let mut report = Report::default();
        for value in [90.0, 110.0, 100.0] {
            report.add("throughput", "orders a second", "1 client", value);
        }
        report.add("throughput", "orders a second", "8 clients", 250.0);
        report.add("throughput", "p50, ms", "8 clients", 31.25);
        report
    }

    #[test]
    fn a_cell_is_a_median_with_its_spread() {
        let text = report().to_text(&about(), &[]);
        assert!(text.contains("| orders a second | 100 (90–110) | 250 |"), "{text}");
        assert!(text.contains("| p50, ms | – | 31.2 |"), "{text}");
        assert!(text.contains("figures are not meaningful"), "{text}");
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let all = [1234.5, 12.34, 2.0, 2.004, 0.81499, 0.0].map(number);
        assert_eq!(all, ["1234", "12.3", "2", "2", "0.815", "0"]);
    }

    #[test]
    fn json_has_every_value() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json(&about(), &[]).unwrap()).unwrap();
        assert_eq!(json["figures"][0]["median"], 100.0);
        assert_eq!(json["figures"][0]["values"], serde_json::json!([90.0, 110.0, 100.0]));
        assert_eq!(json["about"]["cores"], 2);
    }
}
