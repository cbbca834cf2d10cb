//! The styles of interaction between the services.

use std::str::FromStr;

use strum::{Display, EnumIter, IntoEnumIterator, IntoStaticStr};

/// How the operator communicates with billing and notify: the chart's value `interaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Interaction {
    /// The operator calls billing and notify over HTTP.
    #[default]
    Http,
    /// The operator calls billing over HTTP, and communicates with notify over the broker.
    NotifyBroker,
    /// The operator communicates with billing and notify over the broker.
    Broker,
}

impl Interaction {
    /// The name of the style in the chart and in the configuration of the operator.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl FromStr for Interaction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::iter().find(|interaction| interaction.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = Self::iter().map(Self::as_str).collect();
            format!("{name} is not a style of interaction; the styles are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_style_is_parsed_from_its_name() {
        for (name, interaction) in
            [("http", Interaction::Http), ("notify-broker", Interaction::NotifyBroker), ("broker", Interaction::Broker)]
        {
            assert_eq!((interaction.as_str(), name.parse()), (name, Ok(interaction)));
        }
        for name in ["", "HTTP", "grpc"] {
            assert!(name.parse::<Interaction>().is_err(), "{name}");
        }
    }
}
