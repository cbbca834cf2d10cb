//! Faults that are no single effect's: what the operator does not see, what it
//! sees too late, and servers that run out of something.

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

/// A scenario. Each has a shop of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The operator's watch stands still while an order is made and changed.
    UnseenChange,
    /// The operator's watch stands still while an order is made and deleted.
    UnseenDeletion,
    /// The operator's watch stands still while an order is made, deleted, and made again under its name.
    UnseenRecreation,
    /// An order is deleted and made again under its name while the operator works on the first.
    RecreatedMeanwhile,
    /// The operator's watch expires (410) after an order that it has not seen.
    ExpiredWatch,
    /// The operators restart with an older view, in which a paid order looks unpaid.
    StaleRestart,
    /// All of billing's database connections are in use.
    ExhaustedPool,
    /// The disk with the SQLite files is full.
    FullDisk,
    /// One effect in six meets a random fault, forty orders at once, on PostgreSQL.
    StormPostgres,
    /// The same on SQLite.
    StormSqlite,
    /// Orders are deleted while billing does not answer.
    DeletedWhileCharged,
    /// The operators and the archive are killed again and again while finished orders are removed.
    RemovedUnderKills,
    /// The broker is killed with orders under way and stays away for a minute.
    BrokerAway,
    /// The broker stands still for twenty seconds.
    BrokerStandsStill,
    /// Each service in turn does not reach the broker for twenty seconds.
    BrokerParted,
    /// The broker's streams are full for a while.
    FullStream,
    /// The broker brings what nobody understands.
    Garbage,
}

impl Scenario {
    /// Plays it. The seed is that of the storms.
    ///
    /// # Errors
    /// If the parts cannot be started.
    pub async fn run(self, interaction: Interaction, seed: u64) -> Result<Verdict> {
        self.run_with(interaction, None, seed).await
    }

    /// Whether it is the broker's own.
    fn needs_broker(self) -> bool {
        use Scenario::*;
        matches!(self, BrokerAway | BrokerStandsStill | BrokerParted | FullStream | Garbage)
    }

    /// Plays it with a seeded bug of the services themselves.
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
        let shop = Shop::open(&Setup { kind: Kind { interaction, database }, workload: Workload::Life, seeded_bug, data }).await?;
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

/// Plays all scenarios of a style, some at once: most of them mostly wait.
///
/// # Errors
/// If the parts cannot be started.
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

/// Fails with both values if they differ.
fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, wanted: T) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?} instead of {wanted:?}");
    Ok(())
}
