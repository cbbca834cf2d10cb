//! The command line of `orders-faults`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use orders_shop::{Database, Interaction};

use crate::{
    case::{Baseline, CaseName},
    effect::Channel,
    report::Summary,
    scenarios::{self, Scenario},
    seeded_bugs,
    sweep::{self, Plan, Selection},
    system::{Kind, Setup, System},
    workload::Workload,
};

/// Injects faults into the running services and servers of orders, and checks that all guarantees hold.
///
/// An effect is a change that one component makes in another, such as a write or a request. The exit
/// code is 0 only if all guarantees hold.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Inject each fault once on a channel to each server, in one style: about sixty cases, a few minutes
    Quick {
        #[command(flatten)]
        options: SweepOptions,
    },
    /// Inject each fault once on each channel, in each style of interaction, and run all scenarios
    Selection {
        #[command(flatten)]
        options: SweepOptions,
    },
    /// Inject every fault at every effect, in each style of interaction, and run all scenarios: over an hour
    Full {
        #[command(flatten)]
        options: SweepOptions,
    },
    /// List the effects of a run without faults, with their numbers
    Effects {
        /// Database of the services
        #[arg(long, value_enum, default_value_t = Database::Postgres)]
        database: Database,
        /// Style of interaction: http, notify-broker or broker
        #[arg(long, default_value = "http")]
        interaction: Interaction,
        /// List the effects of the deletion of a finished order, not those of live orders
        #[arg(long)]
        removal: bool,
    },
    /// Run one case, named as in a report: http/postgres/17/kill-after
    Case {
        /// The name of the case
        name: CaseName,
    },
    /// Run one scenario, or all scenarios
    Scenario {
        /// The scenario [default: all]
        name: Option<Scenario>,
        /// Random seed of the scenarios with random faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Style of interaction: http, notify-broker or broker
        #[arg(long, default_value = "http")]
        interaction: Interaction,
    },
    /// Check that the harness finds bugs that were seeded in the services
    SeededBugs {
        /// The bug [default: all]
        #[arg(long)]
        bug: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct SweepOptions {
    /// Random seed for the order of the cases
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of systems under test that run concurrently
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    jobs: u16,
    /// Test only with this database
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// Test only this style of interaction: http, notify-broker or broker
    #[arg(long)]
    interaction: Option<Interaction>,
    /// Test only effects over this channel, and no scenarios
    #[arg(long, value_enum)]
    channel: Option<Channel>,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// If the components cannot be started.
    pub async fn run(self) -> Result<ExitCode> {
        let mut summary = Summary::default();
        let result = {
            let work = self.command.run(&mut summary);
            tokio::select! {
                result = work => Some(result),
                _ = tokio::signal::ctrl_c() => None,
            }
        };
        if summary.tried() > 0 {
            summary.print();
        }
        match result {
            None => Ok(ExitCode::from(130)),
            Some(result) => {
                result?;
                Ok(if summary.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

fn setup(kind: Kind, workload: Workload) -> Setup {
    Setup { kind, workload, seeded_bug: None, data: None }
}

impl Command {
    async fn run(self, summary: &mut Summary) -> Result<()> {
        match self {
            Command::Quick { options } => {
                let kind = Kind {
                    interaction: options.interaction.unwrap_or_default(),
                    database: options.database.unwrap_or(Database::Postgres),
                };
                sweep_kind(kind, options, Selection::EachServer, summary).await
            }
            Command::Selection { options } => {
                sweep_all(options, Selection::EachChannel, summary).await?;
                run_scenarios(options, summary).await
            }
            Command::Full { options } => {
                sweep_all(options, Selection::Full, summary).await?;
                run_scenarios(options, summary).await
            }
            Command::Effects { database, interaction, removal } => {
                let workload = if removal { Workload::Removal } else { Workload::Life };
                let system = System::start(&setup(Kind { interaction, database }, workload)).await?;
                let baseline = Baseline::record(&system, workload).await?;
                for (effect, number) in baseline.effects.iter().zip(1..) {
                    println!("{number:>4}  {effect}");
                }
                Ok(())
            }
            Command::Case { name } => {
                let system = System::start(&setup(name.kind, name.workload)).await?;
                let baseline = Baseline::record(&system, name.workload).await?;
                let case = baseline.cases(name.kind).into_iter().find(|case| case.name() == name);
                let case = case.with_context(|| format!("there is no case {name}; see `orders-faults effects`"))?;
                let verdict = case.run(&system, &baseline, "once").await;
                summary.add(&case, &verdict, 0);
                if summary.failed() > 0 {
                    println!("{}", system.actors().logs().await);
                }
                Ok(())
            }
            Command::Scenario { name: None, seed, interaction } => scenarios::run_all(interaction, seed, 1, summary).await,
            Command::Scenario { name: Some(scenario), seed, interaction } => {
                let verdict = scenario.run(interaction, seed).await?;
                summary.add_scenario(&scenario.to_string(), interaction, seed, &verdict);
                Ok(())
            }
            Command::SeededBugs { bug } => seeded_bugs::run(bug.as_deref()).await,
        }
    }
}

/// The selected styles of interaction.
fn interactions(options: SweepOptions) -> impl Iterator<Item = Interaction> {
    let all = [Interaction::Http, Interaction::NotifyBroker, Interaction::Broker];
    all.into_iter().filter(move |interaction| options.interaction.is_none_or(|only| only == *interaction))
}

async fn sweep_all(options: SweepOptions, selection: Selection, summary: &mut Summary) -> Result<()> {
    for interaction in interactions(options) {
        for database in [Database::Postgres, Database::Sqlite] {
            // Differences between the styles do not depend on the database.
            let is_relevant = interaction == Interaction::Http || database == Database::Postgres;
            if options.database.map_or(is_relevant, |only| only == database) {
                sweep_kind(Kind { interaction, database }, options, selection, summary).await?;
            }
        }
    }
    Ok(())
}

/// Runs the cases in systems of one kind. Systems with the workload `Removal` mostly wait, so they run in parallel to the others.
async fn sweep_kind(kind: Kind, options: SweepOptions, selection: Selection, summary: &mut Summary) -> Result<()> {
    let SweepOptions { channel, seed, jobs, .. } = options;
    // All kinds delete an order in the same way, so a selection tests only one kind.
    let first = kind == Kind { interaction: Interaction::Http, database: Database::Postgres };
    let with_removal = selection != Selection::EachChannel || first || channel.is_some();
    let plan = |workload: Workload| {
        let is_selected = channel.is_none_or(|channel| workload.has(channel)) && (workload == Workload::Life || with_removal);
        is_selected.then(|| Plan {
            setup: setup(kind, workload),
            selection,
            channel,
            seed,
            jobs: jobs.into(),
            stop_at_first: false,
        })
    };
    let mut removal_summary = Summary::default();
    tokio::try_join!(run_plan(plan(Workload::Life), summary), run_plan(plan(Workload::Removal), &mut removal_summary))?;
    summary.merge(removal_summary);
    Ok(())
}

async fn run_plan(plan: Option<Plan>, summary: &mut Summary) -> Result<()> {
    match plan {
        Some(plan) => sweep::run(&plan, summary).await,
        None => Ok(()),
    }
}

async fn run_scenarios(options: SweepOptions, summary: &mut Summary) -> Result<()> {
    if options.channel.is_some() {
        return Ok(());
    }
    for interaction in interactions(options) {
        scenarios::run_all(interaction, options.seed, options.jobs.into(), summary).await?;
    }
    Ok(())
}
