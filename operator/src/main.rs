//! The operator.

use std::sync::Arc;

use clap::Parser;
use orders_operator::{
    clients::{billing::HttpBilling, notify::HttpNotify},
    config::Config,
    controller::{self, Context},
    events::Publisher,
    leader::{self, Election},
};
use orders_service::{admin, shutdown::Shutdown, token_file::TokenFile};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    config.log.init()?;
    let shutdown = Shutdown::on_signals()?;
    let client = kube::Client::try_default().await?;
    let identity = config.pod_name.unwrap_or_else(|| format!("orders-operator-{}", uuid::Uuid::new_v4()));

    admin::serve(config.admin_addr, admin::ready_when(async || Ok(())), shutdown.clone()).await?;

    let billing = HttpBilling::new(&config.billing_url, TokenFile::new(config.billing_token_file))?;
    #[cfg(feature = "planted-bugs")]
    let billing = orders_operator::planted::Planted::new(billing, client.clone());
    let context = Arc::new(Context {
        billing: Box::new(billing),
        notify: Box::new(HttpNotify::new(&config.notify_url, TokenFile::new(config.notify_token_file))?),
        events: Publisher::new(client.clone(), identity.clone()),
        client: client.clone(),
    });
    let work = || controller::run(context.clone(), config.namespace.as_deref(), config.concurrency, shutdown.clone());
    tracing::info!(namespace = config.namespace.as_deref().unwrap_or("(all)"), "operator is ready");
    if !config.leader_election {
        work().await;
        return Ok(());
    }
    let election = Election {
        namespace: config.lease_namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
        lease: config.lease_name,
        identity,
        seconds: config.lease_seconds,
    };
    leader::while_leading(client, election, shutdown.clone(), work).await
}
