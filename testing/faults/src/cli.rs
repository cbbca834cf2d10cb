//! The command line.

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

/// Tries to break the promises of orders: every fault at every effect, on real parts.
///
/// Exit code 0 only if nothing broke.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Each fault once on the way to each server, in one style: about sixty cases, a few minutes
    Quick {
        #[command(flatten)]
        how: How,
    },
    /// Each fault once on each channel, in each style of interaction, and all scenarios
    Selection {
        #[command(flatten)]
        how: How,
    },
    /// Every fault at every effect, in each style of interaction, and all scenarios: over an hour
    Full {
        #[command(flatten)]
        how: How,
    },
    /// List the effects of a run without faults, with their numbers
    Effects {
        /// Of which kind of shop
        #[arg(long, value_enum, default_value_t = Database::Postgres)]
        database: Database,
        /// How its services talk: http, notify-broker or broker
        #[arg(long, default_value = "http")]
        interaction: Interaction,
        /// Of an order that is removed, in place of orders that live
        #[arg(long)]
        removal: bool,
    },
    /// One case, named as in a report: http/postgres/17/kill-after
    Case {
        /// Which one
        name: CaseName,
    },
    /// One scenario, or all of them
    Scenario {
        /// Which one; all unless given
        name: Option<Scenario>,
        /// Seed of the storm
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How the services talk: http, notify-broker or broker
        #[arg(long, default_value = "http")]
        interaction: Interaction,
    },
    /// Show that seeded bugs of the services themselves are found
    SeededBugs {
        /// Which one; all unless given
        #[arg(long)]
        bug: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct How {
    /// Shuffles the cases, so that each follows another
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shops at once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    jobs: u16,
    /// Only shops with this database
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// Only shops whose services talk like this: http, notify-broker or broker
    #[arg(long)]
    interaction: Option<Interaction>,
    /// Only effects over this channel, and no scenarios
    #[arg(long, value_enum)]
    channel: Option<Channel>,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// If the parts cannot be started at all.
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

/// The styles of interaction that are asked for.
fn interactions(how: How) -> impl Iterator<Item = Interaction> {
    let all = [Interaction::Http, Interaction::NotifyBroker, Interaction::Broker];
    all.into_iter().filter(move |interaction| how.interaction.is_none_or(|only| only == *interaction))
}

async fn sweep_all(how: How, selection: Selection, tally: &mut Tally) -> Result<()> {
    for interaction in interactions(how) {
        for database in [Database::Postgres, Database::Sqlite] {
            // What differs between the styles does not differ between the databases.
            let of_interest = interaction == Interaction::Http || database == Database::Postgres;
            if how.database.map_or(of_interest, |only| only == database) {
                sweep_kind(Kind { interaction, database }, how, selection, tally).await?;
            }
        }
    }
    Ok(())
}

/// Sweeps shops of one kind. Those in which an order is removed mostly wait, so they are beside the others.
async fn sweep_kind(kind: Kind, how: How, selection: Selection, tally: &mut Tally) -> Result<()> {
    let How { channel, seed, jobs, .. } = how;
    // An order is removed in the same way in all kinds, so for a selection one is enough.
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
