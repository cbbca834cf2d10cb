//! The options with which the services are started.

use std::path::PathBuf;

use anyhow::{Result, bail};
use orders_testbed::{BrokerAccess, binary};

use crate::Interaction;

/// The URLs of databases, broker and mail server, and the numbers of operators and API servers.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// DATABASE_URL of billing; an SQLite file in the stack's directory by default.
    pub billing_database: Option<String>,
    /// DATABASE_URL of notify; an SQLite file in the stack's directory by default.
    pub notify_database: Option<String>,
    /// DATABASE_URL of the archive; an SQLite file in the stack's directory by default.
    pub archive_database: Option<String>,
    /// SMTP_URL.
    pub smtp_url: String,
    /// The style of interaction.
    pub interaction: Interaction,
    /// The broker, required unless the style is [`Interaction::Http`].
    pub nats: Option<BrokerAccess>,
    /// The number of operators, of which one is active at a time.
    pub operators: usize,
    /// The number of servers of the public API, all of which are active.
    pub api_servers: usize,
    /// Port of the public API's first server; a free port by default.
    pub port: Option<u16>,
    /// Additional environment variables, which override the stack's own: service, variable, value. The
    /// service is `billing`, `notify`, `archive`, `api-server`, `operator` (all operators) or
    /// `operator-0` … (one operator).
    pub env: Vec<(&'static str, &'static str, String)>,
    /// The directory of the services' programs; by default that of the running program.
    pub programs: Option<PathBuf>,
}

impl StackOptions {
    /// The defaults: SQLite, this mail server, no broker, one operator, one server of the public API.
    pub fn new(smtp_url: String) -> Self {
        StackOptions {
            billing_database: None,
            notify_database: None,
            archive_database: None,
            smtp_url,
            interaction: Interaction::Http,
            nats: None,
            operators: 1,
            api_servers: 1,
            port: None,
            env: Vec::new(),
            programs: None,
        }
    }

    /// The additional environment of a service.
    pub(crate) fn additional_env<'a>(&'a self, service: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
        let kind = service.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit());
        self.env
            .iter()
            .filter(move |(of, ..)| *of == service || *of == kind)
            .map(|(_, variable, value)| ((*variable).to_owned(), value.clone()))
    }

    /// The environment variables with which a service (`operator`, `billing` or `notify`) connects to
    /// the broker; empty if the service does not use one.
    pub(crate) fn broker_env(&self, service: &str) -> Result<Vec<(&'static str, String)>> {
        let uses_broker = match self.interaction {
            Interaction::Http => false,
            Interaction::NotifyBroker => service != "billing",
            Interaction::Broker => true,
        };
        let mut env = Vec::new();
        if service == "operator" {
            // The variable is always set: otherwise the operator would inherit it from the environment of the tests.
            env.push(("INTERACTION", self.interaction.as_str().to_owned()));
        }
        if !uses_broker {
            return Ok(env);
        }
        let Some(nats) = &self.nats else {
            bail!("interaction {} needs a broker: set StackOptions::nats", self.interaction.as_str());
        };
        let password = match service {
            "operator" => &nats.operator,
            "billing" => &nats.billing,
            _ => &nats.notify,
        };
        env.extend([("NATS_URL", nats.url.clone()), ("NATS_PASSWORD", password.clone())]);
        Ok(env)
    }

    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        match &self.programs {
            Some(directory) => Ok(directory.join(name)),
            None => binary(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(interaction: Interaction) -> StackOptions {
        let nats = BrokerAccess {
            url: "nats://127.0.0.1:4222".to_owned(),
            operator: "o".to_owned(),
            billing: "b".to_owned(),
            notify: "n".to_owned(),
        };
        StackOptions { interaction, nats: Some(nats), ..StackOptions::new("smtp://127.0.0.1:25".to_owned()) }
    }

    fn variables(interaction: Interaction, service: &str) -> Vec<&'static str> {
        let env = options(interaction).broker_env(service).unwrap();
        env.into_iter().map(|(variable, _)| variable).collect()
    }

    #[test]
    fn only_services_that_use_the_broker_get_its_variables() {
        for service in ["billing", "notify"] {
            assert!(variables(Interaction::Http, service).is_empty(), "{service}");
        }
        assert_eq!(variables(Interaction::Http, "operator"), ["INTERACTION"]);
        let (own, all) = (["NATS_URL", "NATS_PASSWORD"], ["INTERACTION", "NATS_URL", "NATS_PASSWORD"]);
        assert_eq!(variables(Interaction::NotifyBroker, "operator"), all);
        assert!(variables(Interaction::NotifyBroker, "billing").is_empty());
        assert_eq!(variables(Interaction::NotifyBroker, "notify"), own);
        assert_eq!(variables(Interaction::Broker, "operator"), all);
        assert_eq!(variables(Interaction::Broker, "billing"), own);
        assert_eq!(variables(Interaction::Broker, "notify"), own);
    }

    #[test]
    fn a_missing_broker_is_reported() {
        let options = StackOptions { nats: None, ..options(Interaction::Broker) };
        assert!(options.broker_env("billing").unwrap_err().to_string().contains("StackOptions::nats"));
        assert!(options.broker_env("operator").is_err());
    }
}
