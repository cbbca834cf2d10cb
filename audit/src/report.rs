//! The report of an audit, as text and as JSON.

use std::fmt::Write;

use orders_crds::Outcome;
use serde::Serialize;
use strum::IntoEnumIterator;

use crate::{
    check::{Rule, Violation},
    collect::Snapshot,
};

/// The amount of data that the audit checked, and the violations that it found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether no rule is violated.
    #[serde(rename = "holds")]
    pub is_consistent: bool,
    /// The number of orders that were checked.
    pub orders: usize,
    /// The number of these orders that are not decided yet. The audit cannot check their charges
    /// and messages.
    pub undecided: usize,
    /// The number of transactions that were checked.
    pub transactions: usize,
    /// The number of accounts that were checked.
    pub accounts: usize,
    /// The number of messages that were read.
    pub messages: usize,
    /// The violations of the rules.
    pub violations: Vec<Violation>,
}

/// Whether the order has no outcome that the audit can check.
fn is_undecided(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Undecided | Outcome::Unknown)
}

impl Report {
    /// Creates a report from a snapshot and the violations in it.
    pub fn new(snapshot: &Snapshot, violations: Vec<Violation>) -> Self {
        Report {
            is_consistent: violations.is_empty(),
            orders: snapshot.orders.len(),
            undecided: snapshot.orders.iter().filter(|order| is_undecided(order.outcome)).count(),
            transactions: snapshot.transactions.len(),
            accounts: snapshot.accounts.len(),
            messages: snapshot.messages.len(),
            violations,
        }
    }

    /// Returns the report as text.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} orders ({} not decided yet), {} transactions, {} accounts, {} messages\n",
            self.orders, self.undecided, self.transactions, self.accounts, self.messages
        );
        for rule in Rule::iter() {
            let violations: Vec<&Violation> = self.violations.iter().filter(|violation| violation.rule == rule).collect();
            let result = if violations.is_empty() { "ok  " } else { "FAIL" };
            let _ = writeln!(text, "{result} {}", rule.description());
            for violation in violations {
                let order = violation.order.as_ref().map(|order| format!("order {order}: ")).unwrap_or_default();
                let _ = writeln!(text, "       {order}{}", violation.detail);
            }
        }
        let _ = match self.violations.len() {
            0 => writeln!(text, "No violations."),
            count => writeln!(text, "{count} violations."),
        };
        text
    }
}
