//! Tests of the harness itself: it runs services with seeded bugs, and must find each bug. This shows that
//! the checks can fail.

use anyhow::{Result, bail};
use orders_shop::{Database, Interaction};

use crate::{
    case::Verdict,
    effect::Channel,
    report::Tally,
    scenarios::Scenario,
    shop::{Kind, Setup},
    sweep::{self, Plan, Selection},
    workload::Workload,
};

/// The seeded bugs: the name and a description.
const BUGS: [(&str, &str); 8] = [
    ("no-unique-key", "billing makes each charge that it is asked for"),
    ("timeout-as-refusal", "the operator takes no answer for a refusal"),
    ("status-before-charge", "the operator writes that an order is paid before it is"),
    ("new-key-per-retry", "the operator asks for each charge under a new key"),
    ("event-as-memory", "the operator takes a charge that it noted in an Event for made"),
    ("message-not-deduplicated", "notify takes each request for a new message"),
    ("status-without-version", "the operator writes a status whatever became of the order meanwhile"),
    ("removed-unarchived", "the operator removes an order without looking whether the archive took it"),
];

/// Runs the harness with each bug in the styles in which the bug has an effect, until the bug is found.
///
/// # Errors
/// If a bug is not found.
pub async fn run(only: Option<&str>) -> Result<()> {
    let mut missed = Vec::new();
    for (bug, wrong) in BUGS.into_iter().filter(|(bug, _)| only.is_none_or(|only| only == *bug)) {
        for style in styles(bug) {
            println!("seeded: {bug} ({wrong}), {}", style.as_str());
            let found = find(bug, *style).await?;
            println!("  {}", if found { "found" } else { "NOT FOUND" });
            if !found {
                missed.push(bug);
            }
        }
    }
    if missed.is_empty() {
        println!("seeded bugs: all found");
    } else {
        bail!("seeded and not found: {}", missed.join(", "));
    }
    Ok(())
}

/// The styles of interaction in which a bug is tested.
fn styles(bug: &str) -> &'static [Interaction] {
    match bug {
        "message-not-deduplicated" => &[Interaction::Http, Interaction::Broker],
        _ => &[Interaction::Http],
    }
}

/// Whether a guarantee is violated with this bug. A timeout does not count as a violation.
async fn find(bug: &'static str, interaction: Interaction) -> Result<bool> {
    if bug == "status-without-version" {
        let verdict = Scenario::RecreatedMeanwhile.run_with(interaction, Some(bug), 1).await?;
        return Ok(matches!(verdict, Verdict::Violated(_)));
    }
    let (workload, channels): (_, &[Channel]) = match interaction {
        _ if bug == "removed-unarchived" => (Workload::Removal, &[Channel::OperatorToArchive]),
        Interaction::Http => (Workload::Life, &[Channel::OperatorToBilling, Channel::OperatorToNotify]),
        _ => (Workload::Life, &[Channel::BillingToBroker, Channel::NotifyToBroker]),
    };
    let mut tally = Tally::default();
    let plan = Plan {
        setup: Setup { kind: Kind { interaction, database: Database::Postgres }, workload, seeded_bug: Some(bug), data: None },
        selection: Selection::On(channels),
        channel: None,
        seed: 1,
        jobs: 1,
        stop_at_first: true,
    };
    sweep::run(&plan, &mut tally).await?;
    Ok(tally.violations() > 0)
}
