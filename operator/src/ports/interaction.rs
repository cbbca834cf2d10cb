//! Chooses the clients of billing and notify for the configured style of interaction. No other
//! module depends on the style.

use std::{future::pending, sync::Arc};

use anyhow::{Context, Result};
use orders_contracts::{interaction::Interaction, topology::Service};
use orders_service::{broker::Broker, token_file::TokenFile};

use super::{
    Billing, Notify,
    http::{billing::HttpBilling, notify::HttpNotify},
    ledger_gate::LedgerGate,
    nats::{self, Listener},
};
use crate::config::Config;

/// The clients of billing and notify for this style.
pub struct Clients {
    /// Charges and refunds accounts.
    pub billing: Arc<dyn Billing>,
    /// Notifies customers.
    pub notify: Arc<dyn Notify>,
    /// Receives the replies of billing and notify. `None` in the style without a broker.
    pub listener: Option<Listener>,
}

impl Clients {
    /// Creates the clients. The calls to billing over HTTP are for the ledger that the gate lets them through to.
    ///
    /// # Errors
    /// If something that the style needs is not configured; the message names it.
    pub async fn new(config: &Config, gate: &LedgerGate) -> Result<Self> {
        Ok(match config.interaction {
            Interaction::Http => {
                Clients { billing: Arc::new(http_billing(config, gate)?), notify: Arc::new(http_notify(config)?), listener: None }
            }
            Interaction::NotifyBroker => {
                let (notify, listener) = nats::notify_only(connect(config).await?);
                Clients { billing: Arc::new(http_billing(config, gate)?), notify: Arc::new(notify), listener: Some(listener) }
            }
            Interaction::Broker => {
                let (billing, notify, listener) = nats::billing_and_notify(connect(config).await?);
                Clients { billing: Arc::new(billing), notify: Arc::new(notify), listener: Some(listener) }
            }
        })
    }
}

/// Receives the replies of billing and notify, if the style has a broker. Never returns.
pub async fn receive(listener: Option<&Listener>) {
    match listener {
        Some(listener) => listener.run().await,
        None => pending().await,
    }
}

fn http_billing(config: &Config, gate: &LedgerGate) -> Result<HttpBilling> {
    Ok(HttpBilling::new(&config.billing_url, TokenFile::new(config.billing_token_file.clone()), gate.clone())?)
}

fn http_notify(config: &Config) -> Result<HttpNotify> {
    Ok(HttpNotify::new(&config.notify_url, TokenFile::new(config.notify_token_file.clone()))?)
}

async fn connect(config: &Config) -> Result<Broker> {
    let broker = config.broker.connect(Service::Operator).await?;
    broker.context("NATS_URL is not set; INTERACTION=notify-broker and broker need it")
}
