//! The kinds of database.

use anyhow::{Result, anyhow};
use clap::ValueEnum;

/// Which databases the services keep their data in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Database {
    /// A server.
    Postgres,
    /// A file for each service.
    #[default]
    Sqlite,
}

impl Database {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Database::Postgres => "postgres",
            Database::Sqlite => "sqlite",
        }
    }

    /// The database that the variable `DATABASE` names; SQLite if it is not set.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_env() -> Result<Self> {
        match std::env::var("DATABASE") {
            Ok(name) if !name.is_empty() => {
                Self::from_str(&name, false).map_err(|_| anyhow!("DATABASE: {name} is neither postgres nor sqlite"))
            }
            _ => Ok(Self::Sqlite),
        }
    }
}
