//! Tests of the harness itself: it runs services with seeded bugs, and must find each bug. This shows that
//! the checks can fail.

use anyhow::{Result, bail};
use orders_shop::{Database, Interaction};

use crate::{
    case::Verdict,
    effect::Channel,
    report::Summary,
    scenarios::Scenario,
    sweep::{self, Plan, Selection},
    system::{Kind, Setup},
    workload::Workload,
};

/// The seeded bugs: the name and a description.
const BUGS: [(&str, &str); 10] = [
    ("no-unique-key", "billing makes each charge that is requested, without a unique key"),
    ("timeout-as-refusal", "the operator treats a missing response as a refusal"),
    ("status-before-charge", "the operator writes the status before the charge"),
    ("new-key-per-retry", "the operator uses a new key for each retry"),
    ("event-as-memory", "the operator uses an Event as its memory of a charge"),
    ("message-not-deduplicated", "notify handles each request as a new message"),
    ("status-without-version", "the operator writes a status without its resourceVersion"),
    ("removed-unarchived", "the operator removes an order without checking that the archive has it"),
    ("capture-before-archive", "the operator has a charge captured before the archive has its order"),
    ("void-without-notify", "the operator voids a charge without asking notify for the customer's message"),
];

/// Runs the harness with each bug in the styles in which the bug has an effect, until the bug is found.
///
/// # Errors
/// If a bug is not found.
pub async fn run(only: Option<&str>) -> Result<()> {
    let mut missed = Vec::new();
    for (bug, description) in BUGS.into_iter().filter(|(bug, _)| only.is_none_or(|only| only == *bug)) {
        for style in styles(bug) {
            println!("seeded: {bug} ({description}), {}", style.as_str());
            let is_found = finds(bug, *style).await?;
            println!("  {}", if is_found { "found" } else { "NOT FOUND" });
            if !is_found {
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
async fn finds(bug: &'static str, interaction: Interaction) -> Result<bool> {
    let scenario = match bug {
        "status-without-version" => Some(Scenario::RecreatedMeanwhile),
        "capture-before-archive" | "void-without-notify" => Some(Scenario::DeletedUnarchived),
        _ => None,
    };
    if let Some(scenario) = scenario {
        let verdict = scenario.run_with(interaction, Some(bug), 1).await?;
        return Ok(matches!(verdict, Verdict::Violated(_)));
    }
    let (workload, channels): (_, &[Channel]) = match interaction {
        _ if bug == "removed-unarchived" => (Workload::Removal, &[Channel::OperatorToArchive]),
        Interaction::Http => (Workload::Life, &[Channel::OperatorToBilling, Channel::OperatorToNotify]),
        _ => (Workload::Life, &[Channel::BillingToBroker, Channel::NotifyToBroker]),
    };
    let mut summary = Summary::default();
    let plan = Plan {
        setup: Setup { kind: Kind { interaction, database: Database::Postgres }, workload, seeded_bug: Some(bug), data: None },
        selection: Selection::On(channels),
        channel: None,
        seed: 1,
        jobs: 1,
        stop_at_first: true,
    };
    sweep::run(&plan, &mut summary).await?;
    Ok(summary.violations() > 0)
}
