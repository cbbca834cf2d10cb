//! The styles of interaction.

use std::str::FromStr;

use anyhow::{Result, anyhow};

/// How the services talk, as the chart's value of this name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interaction {
    /// The operator calls billing and notify.
    #[default]
    Http,
    /// The operator calls billing; notify is told through the broker.
    NotifyBroker,
    /// Everything between the operator, billing and notify goes through the broker.
    Broker,
}

impl Interaction {
    /// The value as the chart and the services write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::NotifyBroker => "notify-broker",
            Self::Broker => "broker",
        }
    }

    /// The style that the variable `INTERACTION` names; `http` if it is not set.
    ///
    /// # Errors
    /// When there is none of this name.
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
