//! The command line of `orders-faults`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use orders_shop::{Database, Interaction};

use crate::{
    case::{CaseName, Learned},
    effect::Channel,
    report::Tally,
    scenarios::{self, Scenario},
    seeded_bugs,
    shop::{Kind, Setup, Shop},
    sweep::{self, Plan, Selection},
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
        how: How,
    },
    /// Inject each fault once on each channel, in each style of interaction, and run all scenarios
    Selection {
        #[command(flatten)]
        how: How,
    },
    /// Inject every fault at every effect, in each style of interaction, and run all scenarios: over an hour
    Full {
        #[command(flatten)]
        how: How,
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
struct How {
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
        let mut tally = Tally::default();
        let done = {
            let work = self.command.run(&mut tally);
            tokio::select! {
                done = work => Some(done),
                _ = tokio::signal::ctrl_c() => None,
            }
        };
        if tally.tried() > 0 {
            tally.print();
        }
        match done {
            None => Ok(ExitCode::from(130)),
            Some(done) => {
                done?;
                Ok(if tally.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

fn setup(kind: Kind, workload: Workload) -> Setup {
    Setup { kind, workload, seeded_bug: None, data: None }
}

impl Command {
    async fn run(self, tally: &mut Tally) -> Result<()> {
        match self {
            Command::Quick { how } => {
                let kind = Kind {
                    interaction: how.interaction.unwrap_or_default(),
                    database: how.database.unwrap_or(Database::Postgres),
                };
                sweep_kind(kind, how, Selection::EachServer, tally).await
            }
            Command::Selection { how } => {
                sweep_all(how, Selection::EachChannel, tally).await?;
                scenarios_all(how, tally).await
            }
            Command::Full { how } => {
                sweep_all(how, Selection::Full, tally).await?;
                scenarios_all(how, tally).await
            }
            Command::Effects { database, interaction, removal } => {
                let workload = if removal { Workload::Removal } else { Workload::Life };
                let shop = Shop::open(&setup(Kind { interaction, database }, workload)).await?;
                let learned = Learned::from(&shop, workload).await?;
                for (effect, number) in learned.effects.iter().zip(1..) {
                    println!("{number:>4}  {effect}");
                }
                Ok(())
            }
            Command::Case { name } => {
                let shop = Shop::open(&setup(name.kind, name.workload)).await?;
                let learned = Learned::from(&shop, name.workload).await?;
                let case = learned.cases(name.kind).into_iter().find(|case| case.name() == name);
                let case = case.with_context(|| format!("there is no case {name}; see `orders-faults effects`"))?;
                let verdict = case.run(&shop, &learned, "once").await;
                tally.add(&case, &verdict, 0);
                if tally.failed() > 0 {
                    println!("{}", shop.actors().logs().await);
                }
                Ok(())
            }
            Command::Scenario { name: None, seed, interaction } => scenarios::run_all(interaction, seed, 1, tally).await,
            Command::Scenario { name: Some(scenario), seed, interaction } => {
                let verdict = scenario.run(interaction, seed).await?;
                tally.add_scenario(&scenario.to_string(), interaction, seed, &verdict);
                Ok(())
            }
            Command::SeededBugs { bug } => seeded_bugs::run(bug.as_deref()).await,
        }
    }
}

/// The selected styles of interaction.
fn interactions(how: How) -> impl Iterator<Item = Interaction> {
    let all = [Interaction::Http, Interaction::NotifyBroker, Interaction::Broker];
    all.into_iter().filter(move |interaction| how.interaction.is_none_or(|only| only == *interaction))
}

async fn sweep_all(how: How, selection: Selection, tally: &mut Tally) -> Result<()> {
    for interaction in interactions(how) {
        for database in [Database::Postgres, Database::Sqlite] {
            // Differences between the styles do not depend on the database.
            let of_interest = interaction == Interaction::Http || database == Database::Postgres;
            if how.database.map_or(of_interest, |only| only == database) {
                sweep_kind(Kind { interaction, database }, how, selection, tally).await?;
            }
        }
    }
    Ok(())
}

/// Runs the cases in shops of one kind. Shops with the workload `Removal` mostly wait, so they run in parallel to the others.
async fn sweep_kind(kind: Kind, how: How, selection: Selection, tally: &mut Tally) -> Result<()> {
    let How { channel, seed, jobs, .. } = how;
    // All kinds delete an order in the same way, so a selection tests only one kind.
    let first = kind == Kind { interaction: Interaction::Http, database: Database::Postgres };
    let with_removal = selection != Selection::EachChannel || first || channel.is_some();
    let plan = |workload: Workload| {
        let asked = channel.is_none_or(|channel| workload.has(channel)) && (workload == Workload::Life || with_removal);
        asked.then(|| Plan { setup: setup(kind, workload), selection, channel, seed, jobs: jobs.into(), stop_at_first: false })
    };
    let mut of_removal = Tally::default();
    tokio::try_join!(try_plan(plan(Workload::Life), tally), try_plan(plan(Workload::Removal), &mut of_removal))?;
    tally.take_in(of_removal);
    Ok(())
}

async fn try_plan(plan: Option<Plan>, tally: &mut Tally) -> Result<()> {
    match plan {
        Some(plan) => sweep::run(&plan, tally).await,
        None => Ok(()),
    }
}

async fn scenarios_all(how: How, tally: &mut Tally) -> Result<()> {
    if how.channel.is_some() {
        return Ok(());
    }
    for interaction in interactions(how) {
        scenarios::run_all(interaction, how.seed, how.jobs.into(), tally).await?;
    }
    Ok(())
}
