//! Scenarios with faults that do not belong to a single effect: changes that the operator does not see or
//! sees too late, and servers that run out of a resource.

mod assert;
mod broker;
mod life;
mod servers;
mod settlement;
mod storm;
mod views;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use futures::{StreamExt, stream};
use orders_shop::{Database, Interaction};

use crate::{
    case::Verdict,
    effect::Channel,
    report::Summary,
    system::{Kind, Setup, System},
    workload::Workload,
};

/// A scenario. Each one uses a new system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The operator's watch delivers nothing while an order is created and changed.
    UnseenChange,
    /// The operator's watch delivers nothing while an order is created and deleted.
    UnseenDeletion,
    /// The operator's watch delivers nothing while an order is created, deleted, and created again with the same name.
    UnseenRecreation,
    /// An order is deleted and created again with the same name while the operator processes the first one.
    RecreatedMeanwhile,
    /// The operator's watch expires (410) after the creation of an order that it has not seen.
    ExpiredWatch,
    /// The operators restart with an outdated list, in which a paid order is unpaid.
    StaleRestart,
    /// All of billing's database connections are in use.
    ExhaustedPool,
    /// The disk with the SQLite files is full.
    FullDisk,
    /// Random faults at one effect in six, with forty concurrent orders, on PostgreSQL.
    StormPostgres,
    /// Random faults at one effect in six, with forty concurrent orders, on SQLite.
    StormSqlite,
    /// Orders are deleted while billing does not respond.
    DeletedWhileCharged,
    /// A paid order is deleted before the archive has it, while no operator works.
    DeletedUnarchived,
    /// An order is deleted in the pass that charges it, and the operator dies.
    DeletedUntold,
    /// The finalizer of an order is removed by hand, and the order is deleted, while no operator works.
    FinalizerRemoved,
    /// The operators and the archive are killed repeatedly while finished orders are deleted.
    RemovedUnderKills,
    /// The broker is killed while orders are processed, and is unavailable for a minute.
    BrokerDown,
    /// The broker is suspended (SIGSTOP) for twenty seconds.
    BrokerSuspended,
    /// Each service in turn cannot reach the broker for twenty seconds.
    BrokerPartitioned,
    /// The broker's streams are temporarily full.
    FullStream,
    /// The broker delivers messages that no service can parse.
    MalformedMessages,
}

impl Scenario {
    /// Runs the scenario. `seed` is the seed of random faults.
    ///
    /// # Errors
    /// If the components cannot be started.
    pub async fn run(self, interaction: Interaction, seed: u64) -> Result<Verdict> {
        self.run_with(interaction, None, seed).await
    }

    /// Whether the scenario requires a broker.
    fn needs_broker(self) -> bool {
        use Scenario::*;
        matches!(self, BrokerDown | BrokerSuspended | BrokerPartitioned | FullStream | MalformedMessages)
    }

    /// Runs the scenario with a bug that is seeded in the services.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(self, interaction: Interaction, seeded_bug: Option<&'static str>, seed: u64) -> Result<Verdict> {
        let database = match self {
            Scenario::FullDisk | Scenario::StormSqlite => Database::Sqlite,
            _ => Database::Postgres,
        };
        let disk = match self {
            Scenario::FullDisk => Some(servers::SmallDisk::new()?),
            _ => None,
        };
        let data = disk.as_ref().map(|disk| disk.path().to_owned());
        let expected_to_hold = seeded_bug.is_none();
        let system =
            System::start(&Setup { kind: Kind { interaction, database }, workload: Workload::Life, seeded_bug, data }).await?;
        let result = match self {
            Scenario::UnseenChange => views::unseen_change(&system).await,
            Scenario::UnseenDeletion => views::unseen_deletion(&system).await,
            Scenario::UnseenRecreation => views::unseen_recreation(&system).await,
            Scenario::RecreatedMeanwhile => views::recreated_meanwhile(&system).await,
            Scenario::ExpiredWatch => views::expired_watch(&system).await,
            Scenario::StaleRestart => views::stale_restart(&system).await,
            Scenario::ExhaustedPool => servers::exhausted_pool(&system).await,
            Scenario::FullDisk => match &disk {
                Some(disk) => servers::full_disk(&system, disk).await,
                None => Ok(()),
            },
            Scenario::StormPostgres | Scenario::StormSqlite => storm::storm(&system, seed).await,
            Scenario::DeletedWhileCharged => life::deleted_while_charged(&system).await,
            Scenario::DeletedUnarchived => settlement::deleted_unarchived(&system).await,
            Scenario::DeletedUntold => settlement::deleted_untold(&system).await,
            Scenario::FinalizerRemoved => settlement::finalizer_removed(&system).await,
            Scenario::RemovedUnderKills => life::removed_under_kills(&system).await,
            Scenario::BrokerDown => broker::down(&system).await,
            Scenario::BrokerSuspended => broker::suspended(&system).await,
            Scenario::BrokerPartitioned => {
                let channels = [Channel::OperatorToBroker, Channel::NotifyToBroker, Channel::BillingToBroker];
                broker::partitioned(&system, if interaction == Interaction::Broker { &channels } else { &channels[..2] }).await
            }
            Scenario::FullStream => broker::full_stream(&system).await,
            Scenario::MalformedMessages => broker::malformed_messages(&system).await,
        };
        system.injector.stop_faults();
        let verdict = Verdict::of(result.and(system.audit().await));
        if verdict != Verdict::Holds && expected_to_hold {
            println!("{}", system.actors().logs().await);
        }
        Ok(verdict)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Runs all scenarios of a style, some of them in parallel, since most of them mostly wait.
///
/// # Errors
/// If the components cannot be started.
pub async fn run_all(interaction: Interaction, seed: u64, jobs: usize, summary: &mut Summary) -> Result<()> {
    println!("scenarios, {}, seed {seed}", interaction.as_str());
    let applies = |scenario: &Scenario| interaction != Interaction::Http || !scenario.needs_broker();
    let results = Scenario::value_variants()
        .iter()
        .copied()
        .filter(applies)
        .map(async |scenario| (scenario, scenario.run(interaction, seed).await));
    let mut results = stream::iter(results).buffer_unordered(jobs);
    while let Some((scenario, verdict)) = results.next().await {
        summary.add_scenario(&scenario.to_string(), interaction, seed, &verdict?);
    }
    Ok(())
}
