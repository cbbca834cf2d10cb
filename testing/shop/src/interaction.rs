//! The styles of interaction between the services.

use std::str::FromStr;

use anyhow::{Result, anyhow};

/// The style of interaction between the services: the chart's value `interaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interaction {
    /// The operator calls billing and notify over HTTP.
    #[default]
    Http,
    /// The operator calls billing over HTTP, and communicates with notify through the broker.
    NotifyBroker,
    /// The operator, billing and notify communicate through the broker only.
    Broker,
}

impl Interaction {
    /// The name of the style in the chart and the services' configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::NotifyBroker => "notify-broker",
            Self::Broker => "broker",
        }
    }

    /// The style that the environment variable `INTERACTION` names; `http` if it is not set.
    ///
    /// # Errors
    /// If no style has this name.
    pub fn from_env() -> Result<Self> {
        match std::env::var("INTERACTION") {
            Ok(name) if !name.is_empty() => Ok(name.parse().map_err(|error| anyhow!("INTERACTION: {error}"))?),
            _ => Ok(Self::Http),
        }
    }
}

impl FromStr for Interaction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Http, Self::NotifyBroker, Self::Broker];
        let found = all.into_iter().find(|interaction| interaction.as_str() == name);
        found.ok_or_else(|| format!("{name} is none of http, notify-broker and broker"))
    }
}
