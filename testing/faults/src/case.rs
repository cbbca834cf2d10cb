//! A test case: one fault at one effect, and the checks of its outcome.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use orders_shop::{Database, Interaction};
use orders_testbed::{TIMED_OUT, WAIT_TIMEOUT};

use crate::{
    effect::{Channel, Effect},
    fault::Fault,
    system::{Kind, System},
    workload::{self, FinalState, Workload},
};

/// The components count as idle after this time without an effect.
const IDLE_PERIOD: Duration = Duration::from_millis(300);

/// The time limit for the components to become idle after the workload.
const IDLE_TIMEOUT: Duration = WAIT_TIMEOUT;

/// The time limit for the effect after the workload has finished: Events are written last.
const EFFECT_TIMEOUT: Duration = WAIT_TIMEOUT;

/// A test case: a fault at the effect with this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The style of interaction and the database.
    pub kind: Kind,
    /// The workload of its customers.
    pub workload: Workload,
    /// The effect's position in a run without faults, from 1.
    pub number: usize,
    /// The effect.
    pub effect: Effect,
    /// The fault.
    pub fault: Fault,
}

/// The name of a case, as reports print it and the command `case` accepts it:
/// `http/postgres/17/kill-after`, or `http/postgres/removal-3/kill-after` for the workload `Removal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseName {
    /// The style of interaction and the database.
    pub kind: Kind,
    /// The workload of its customers.
    pub workload: Workload,
    /// The number of the effect.
    pub number: usize,
    /// The fault.
    pub fault: Fault,
}

/// The result of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All guarantees hold.
    Holds,
    /// A guarantee does not hold.
    Violated(String),
    /// The orders did not settle within the time limit.
    Unsettled(String),
    /// The effect did not occur, so the fault was not injected.
    NotReached,
}

/// The result of a run without faults, to which each case is compared.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The workload of the run.
    pub workload: Workload,
    /// The final state.
    pub final_state: FinalState,
    /// The effects of the run. The first one has the number 1.
    pub effects: Vec<Effect>,
}

impl Verdict {
    /// Converts a result to a verdict. A timeout is [`Verdict::Unsettled`]; every other error is a violation.
    pub fn of(result: Result<()>) -> Self {
        match result {
            Ok(()) => Verdict::Holds,
            Err(error) if format!("{error:#}").contains(TIMED_OUT) => Verdict::Unsettled(format!("{error:#}")),
            Err(error) => Verdict::Violated(format!("{error:#}")),
        }
    }
}

impl Baseline {
    /// Runs the workload twice without faults. Effects of only one of the runs are not numbered: on a slow machine a
    /// request may time out and be repeated, which other runs do not do.
    ///
    /// # Errors
    /// If the orders of a run do not settle, or the audit fails.
    pub async fn record(system: &System, workload: Workload) -> Result<Self> {
        let mut baseline = Self::record_run(system, workload, "baseline").await?;
        let other = Self::record_run(system, workload, "baseline-again").await?;
        baseline.effects.retain(|effect| other.effects.contains(effect));
        Ok(baseline)
    }

    async fn record_run(system: &System, workload: Workload, login: &str) -> Result<Self> {
        system.injector.begin(Vec::new());
        let mut final_state = workload.run(system, login).await.context("a run without faults")?;
        wait_quiescent(system).await?;
        workload::count_mails(system, login, &mut final_state).await?;
        system.audit().await.context("after a run without faults")?;
        let effects = system.injector.effects().into_iter().filter(|effect| Workload::of(effect) == workload).collect();
        Ok(Baseline { workload, final_state, effects })
    }

    /// All cases: every fault at every effect.
    pub fn cases(&self, kind: Kind) -> Vec<Case> {
        let numbered = self.effects.iter().zip(1..);
        numbered
            .flat_map(|(effect, number)| {
                Fault::of(effect).map(move |fault| Case { kind, workload: self.workload, number, effect: effect.clone(), fault })
            })
            .collect()
    }
}

/// Waits until no component has an effect any more and the broker has delivered all messages.
async fn wait_quiescent(system: &System) -> Result<()> {
    system.wait_delivered(IDLE_TIMEOUT).await?;
    system.injector.wait_idle(IDLE_PERIOD, IDLE_TIMEOUT).await
}

impl Case {
    /// Runs the case in a system, for a new customer with this login.
    pub async fn run(&self, system: &System, baseline: &Baseline, login: &str) -> Verdict {
        system.injector.begin(vec![(self.effect.clone(), self.fault)]);
        let final_state = self.workload.run(system, login).await;
        if !system.injector.wait_for_fault(EFFECT_TIMEOUT).await {
            return Verdict::NotReached;
        }
        let idle = wait_quiescent(system).await;
        let audit = system.audit().await;
        match (final_state, idle, audit) {
            (_, _, Err(error)) => Verdict::of(Err(error)),
            (Err(error), ..) | (_, Err(error), _) => Verdict::Unsettled(format!("{error:#}")),
            (Ok(mut final_state), Ok(()), Ok(())) => match workload::count_mails(system, login, &mut final_state).await {
                Err(error) => Verdict::Unsettled(format!("{error:#}")),
                Ok(()) => match self.difference(&final_state, &baseline.final_state) {
                    Some(difference) => Verdict::Violated(difference),
                    None => Verdict::Holds,
                },
            },
        }
    }

    /// The first difference from the final state without the fault.
    fn difference(&self, final_state: &FinalState, expected: &FinalState) -> Option<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, actual: &dyn fmt::Debug, expected: &dyn fmt::Debug| {
            let (actual, expected) = (format!("{actual:?}"), format!("{expected:?}"));
            if actual != expected {
                differences.push(format!("{what}: {actual} instead of {expected}"));
            }
        };
        for (actual, expected) in final_state.orders.iter().zip(&expected.orders) {
            compare("an order", actual, expected);
        }
        compare("the balance", &final_state.balance, &expected.balance);
        compare("the messages", &final_state.messages, &expected.messages);
        for (actual, expected) in final_state.statuses.iter().zip(&expected.statuses) {
            // 202, for an undecided order, is always a correct response.
            if *actual != 202 {
                compare("the status of a response", actual, expected);
            }
        }
        for (actual, expected) in final_state.mails.iter().zip(&expected.mails) {
            if *actual == 0 || !self.may_send_mail_again() {
                compare("mails of an order", actual, expected);
            }
        }
        if final_state.stray_mails > 0 {
            differences.push(format!("{} mails under other Message-IDs than the orders'", final_state.stray_mails));
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }

    /// Whether notify may not know that the mail server accepted a message, because it lost
    /// the reply or died before it stored the fact. SMTP then allows only to send the message
    /// again, with the same Message-ID. An unavailable database is no such reason.
    fn may_send_mail_again(&self) -> bool {
        match (self.effect.channel, self.effect.operation.as_str()) {
            (Channel::NotifyToMail, "message") => matches!(self.fault, Fault::KillAfter | Fault::LoseReply | Fault::Late),
            (Channel::NotifyToDatabase, "UPDATE messages SET sent_at") => self.fault == Fault::KillBefore,
            // notify may send the mail while it acknowledges a message of the broker.
            (Channel::NotifyToBroker, _) => matches!(self.fault, Fault::KillBefore | Fault::KillAfter),
            _ => false,
        }
    }

    /// The case's name.
    pub fn name(&self) -> CaseName {
        CaseName { kind: self.kind, workload: self.workload, number: self.number, fault: self.fault }
    }
}

/// The prefix of the number of an effect of [`Workload::Removal`].
const REMOVAL: &str = "removal-";

impl fmt::Display for CaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workload = if self.workload == Workload::Removal { REMOVAL } else { "" };
        write!(f, "{}/{workload}{}/{}", self.kind, self.number, self.fault)
    }
}

impl FromStr for CaseName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(4, '/');
        let mut next =
            || parts.next().ok_or("expected INTERACTION/DATABASE/NUMBER/FAULT, such as http/postgres/17/kill-after".to_owned());
        let interaction = next()?.parse::<Interaction>()?;
        let database = Database::from_str(next()?, false).map_err(|_| "the database is postgres or sqlite")?;
        let number = next()?;
        let (workload, number) = match number.strip_prefix(REMOVAL) {
            Some(number) => (Workload::Removal, number),
            None => (Workload::Life, number),
        };
        let number = number.parse().map_err(|_| "the number of the effect is not a number")?;
        let fault = Fault::parse(next()?).ok_or("there is no such fault")?;
        Ok(CaseName { kind: Kind { interaction, database }, workload, number, fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        for name in ["http/postgres/17/kill-after", "broker/sqlite/3/answer-503", "http/postgres/removal-3/late"] {
            assert_eq!(name.parse::<CaseName>().unwrap().to_string(), name);
        }
        assert!("http/postgres/17".parse::<CaseName>().is_err());
    }
}
