//! The result in words and as JSON.

use std::fmt::Write;

use orders_crds::Outcome;
use serde::Serialize;
use strum::IntoEnumIterator;

use crate::{
    check::{Rule, Violation},
    collect::Snapshot,
};

/// What was looked at and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every rule holds.
    pub holds: bool,
    /// Orders looked at.
    pub orders: usize,
    /// Of those, not decided yet: nothing can be said of them.
    pub undecided: usize,
    /// Transactions looked at.
    pub transactions: usize,
    /// Accounts looked at.
    pub accounts: usize,
    /// Messages looked at.
    pub messages: usize,
    /// What does not hold.
    pub violations: Vec<Violation>,
}

/// Whether nothing can be concluded from the order's outcome.
fn is_undecided(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Undecided | Outcome::Unknown)
}

impl Report {
    /// Puts together what was read and what was found in it.
    pub fn new(snapshot: &Snapshot, violations: Vec<Violation>) -> Self {
        Report {
            holds: violations.is_empty(),
            orders: snapshot.orders.len(),
            undecided: snapshot.orders.iter().filter(|order| is_undecided(order.outcome)).count(),
            transactions: snapshot.transactions.len(),
            accounts: snapshot.accounts.len(),
            messages: snapshot.messages.len(),
            violations,
        }
    }

    /// The report as text.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} orders ({} not decided yet), {} transactions, {} accounts, {} messages\n",
            self.orders, self.undecided, self.transactions, self.accounts, self.messages
        );
        for rule in Rule::iter() {
            let broken: Vec<&Violation> = self.violations.iter().filter(|violation| violation.rule == rule).collect();
            let mark = if broken.is_empty() { "ok  " } else { "FAIL" };
            let _ = writeln!(text, "{mark} {}", rule.in_words());
            for violation in broken {
                let order = violation.order.as_ref().map(|order| format!("order {order}: ")).unwrap_or_default();
                let _ = writeln!(text, "       {order}{}", violation.detail);
            }
        }
        let _ = match self.violations.len() {
            0 => writeln!(text, "Everything holds."),
            count => writeln!(text, "{count} violations."),
        };
        text
    }
}
