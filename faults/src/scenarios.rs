//! Faults that are no single effect's: what the operator does not see, what it
//! sees too late, and servers that run out of something.

mod servers;
mod storm;
mod views;

use std::{fmt, path::PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::{
    case::Verdict,
    report::Tally,
    shop::{Database, Setup, Shop},
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
    /// One effect in fifteen meets a random fault, forty orders at once, on PostgreSQL.
    StormPostgres,
    /// The same on SQLite.
    StormSqlite,
}

impl Scenario {
    /// Plays it. The seed is that of the storms.
    ///
    /// # Errors
    /// If the parts cannot be started.
    pub async fn run(self, seed: u64) -> Result<Verdict> {
        self.run_with(None, seed).await
    }

    /// Plays it with a deliberate fault of the services themselves.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(self, planted: Option<(String, PathBuf)>, seed: u64) -> Result<Verdict> {
        let database = match self {
            Scenario::FullDisk | Scenario::StormSqlite => Database::Sqlite,
            _ => Database::Postgres,
        };
        let disk = match self {
            Scenario::FullDisk => Some(servers::SmallDisk::new()?),
            _ => None,
        };
        let data = disk.as_ref().map(|disk| disk.path().to_owned());
        let expected_to_hold = planted.is_none();
        let shop = Shop::open(&Setup { database, planted, data }).await?;
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

/// Plays all scenarios, one after the other.
///
/// # Errors
/// If the parts cannot be started.
pub async fn run_all(seed: u64, tally: &mut Tally) -> Result<()> {
    println!("scenarios, seed {seed}");
    for scenario in Scenario::value_variants() {
        tally.add_scenario(&scenario.to_string(), seed, &scenario.run(seed).await?);
    }
    Ok(())
}

/// Fails with both values if they differ.
fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, wanted: T) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?} instead of {wanted:?}");
    Ok(())
}
