//! Scenarios with faults that do not belong to a single effect: changes that the operator does not see or
//! sees too late, and servers that run out of a resource.

mod broker;
mod life;
mod servers;
mod storm;
mod views;

use std::fmt;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use futures::{StreamExt, stream};
use orders_shop::{Database, Interaction};

use crate::{
    case::Verdict,
    effect::Channel,
    report::Tally,
    shop::{Kind, Setup, Shop},
    workload::Workload,
};

/// A scenario. Each one uses a new shop.
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
    /// The operators and the archive are killed repeatedly while finished orders are deleted.
    RemovedUnderKills,
    /// The broker is killed while orders are processed, and is unavailable for a minute.
    BrokerAway,
    /// The broker is frozen for twenty seconds.
    BrokerStandsStill,
    /// Each service in turn cannot reach the broker for twenty seconds.
    BrokerParted,
    /// The broker's streams are temporarily full.
    FullStream,
    /// The broker delivers messages that no service can parse.
    Garbage,
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
        matches!(self, BrokerAway | BrokerStandsStill | BrokerParted | FullStream | Garbage)
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
        let shop =
            Shop::open(&Setup { kind: Kind { interaction, database }, workload: Workload::Life, seeded_bug, data }).await?;
        let played = match self {
            Scenario::UnseenChange => views::unseen_change(&shop).await,
            Scenario::UnseenDeletion => views::unseen_deletion(&shop).await,
            Scenario::UnseenRecreation => views::unseen_recreation(&shop).await,
            Scenario::RecreatedMeanwhile => views::recreated_meanwhile(&shop).await,
            Scenario::ExpiredWatch => views::expired_watch(&shop).await,
            Scenario::StaleRestart => views::stale_restart(&shop).await,
            Scenario::ExhaustedPool => servers::exhausted_pool(&shop).await,
            Scenario::FullDisk => match &disk {
                Some(disk) => servers::full_disk(&shop, disk).await,
                None => Ok(()),
            },
            Scenario::StormPostgres | Scenario::StormSqlite => storm::storm(&shop, seed).await,
            Scenario::DeletedWhileCharged => life::deleted_while_charged(&shop).await,
            Scenario::RemovedUnderKills => life::removed_under_kills(&shop).await,
            Scenario::BrokerAway => broker::away(&shop).await,
            Scenario::BrokerStandsStill => broker::stands_still(&shop).await,
            Scenario::BrokerParted => {
                let everybody = [Channel::OperatorToBroker, Channel::NotifyToBroker, Channel::BillingToBroker];
                broker::parted(&shop, if interaction == Interaction::Broker { &everybody } else { &everybody[..2] }).await
            }
            Scenario::FullStream => broker::full_stream(&shop).await,
            Scenario::Garbage => broker::garbage(&shop).await,
        };
        shop.board.calm();
        let verdict = Verdict::of(played.and(shop.audit().await));
        if verdict != Verdict::Holds && expected_to_hold {
            println!("{}", shop.actors().logs().await);
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
pub async fn run_all(interaction: Interaction, seed: u64, jobs: usize, tally: &mut Tally) -> Result<()> {
    println!("scenarios, {}, seed {seed}", interaction.as_str());
    let apply = |scenario: &Scenario| interaction != Interaction::Http || !scenario.needs_broker();
    let played = Scenario::value_variants()
        .iter()
        .copied()
        .filter(apply)
        .map(async |scenario| (scenario, scenario.run(interaction, seed).await));
    let mut played = stream::iter(played).buffer_unordered(jobs);
    while let Some((scenario, verdict)) = played.next().await {
        tally.add_scenario(&scenario.to_string(), interaction, seed, &verdict?);
    }
    Ok(())
}

/// Fails if two values differ. The error contains both.
fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, wanted: T) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?} instead of {wanted:?}");
    Ok(())
}
