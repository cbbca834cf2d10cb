//! The kinds of database that the services support.

use std::fmt;

use anyhow::{Result, anyhow};
use clap::ValueEnum;

/// The kind of database in which the services store their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Database {
    /// A PostgreSQL server.
    Postgres,
    /// An SQLite file for each service.
    #[default]
    Sqlite,
}

impl Database {
    /// The name of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Database::Postgres => "postgres",
            Database::Sqlite => "sqlite",
        }
    }

    /// The kind that the environment variable `DATABASE` names; SQLite if it is not set.
    ///
    /// # Errors
    /// If no kind has this name.
    pub fn from_env() -> Result<Self> {
        match std::env::var("DATABASE") {
            Ok(name) if !name.is_empty() => {
                Self::from_str(&name, false).map_err(|_| anyhow!("DATABASE: {name} is neither postgres nor sqlite"))
            }
            _ => Ok(Self::Sqlite),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
