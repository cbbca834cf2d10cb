//! The operator's program: it reads the configuration, creates the clients and runs the controllers.

use std::{sync::Arc, time::Duration};

use orders_operator::{
    claims::Ledgers,
    config::Config,
    customer::context::Customers,
    kube::{events::Publisher, server_clock::ServerClock},
    leader::{self, Election},
    order::{
        context::Context,
        retention::Retention,
        settlement::{Services, Settlement},
        settlement_check::SettlementCheck,
        watch_echo::WatchEcho,
    },
    ports::{
        Billing, Names, NoArchive,
        http::{accounts::Accounts, archive::Archive, authorizations::Authorizations, notify::HttpNotify},
        interaction::Clients,
        ledger_gate::{GatedBilling, LedgerGate},
    },
    tasks::Tasks,
};
use orders_service::{admin, arguments, kubernetes, shutdown::Shutdown, token_file::TokenFile};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = arguments::parse();
    config.log.init()?;
    let shutdown = Shutdown::on_signals()?;
    let client = kubernetes::client().await?;
    let identity = config.pod_name.clone().unwrap_or_else(|| format!("orders-operator-{}", uuid::Uuid::new_v4()));

    let lease_namespace = config.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let operator_lease = config.leader_election.then(|| format!("{lease_namespace}/{}", config.lease_name));
    let accounts = Accounts::new(&config.billing_url, TokenFile::new(config.billing_token_file.clone()))?;
    let gate = LedgerGate::default();
    let ledgers = Ledgers::new(client.clone(), accounts.clone(), operator_lease, gate.clone());
    let checked = ledgers.clone();
    let ready = admin::ready_when(move || std::future::ready(checked.check_ready()));
    admin::serve(config.admin_addr, ready, shutdown.clone()).await?;

    let Clients { billing, notify, listener } = Clients::new(&config, &gate).await?;
    #[cfg(debug_assertions)]
    let billing = Arc::new(orders_operator::seeded_bugs::SeededBilling::new(billing, client.clone()));
    let billing: Arc<dyn Billing> = Arc::new(GatedBilling::new(billing, gate.clone()));
    let archive = match &config.archive_url {
        Some(url) => Some(Archive::new(url, TokenFile::new(config.archive_token_file.clone()))?),
        None => None,
    };
    let authorizations = Authorizations::new(&config.billing_url, TokenFile::new(config.billing_token_file.clone()))?;
    let ttl = config.ttl_seconds_after_finished.map(Duration::from_secs);
    let retention = Retention::new(archive.clone(), authorizations.clone(), client.clone(), ttl);
    let messages = HttpNotify::new(&config.notify_url, TokenFile::new(config.notify_token_file.clone()))?;
    let names: Arc<dyn Names> = match archive.clone() {
        Some(archive) => Arc::new(archive),
        None => Arc::new(NoArchive),
    };
    let services = Services { billing: billing.clone(), notify: notify.clone(), messages, authorizations, archive };
    let settlement_check = SettlementCheck {
        settlement: Settlement::new(client.clone(), services, retention.removals()),
        namespace: config.namespace.clone(),
        interval: Duration::from_secs(config.settlement_interval_seconds),
        min_age: Duration::from_secs(config.settlement_min_age_seconds),
    };
    let events = Publisher::new(client.clone(), identity.clone());
    let customers = Customers::new(client.clone(), accounts.behind(gate), events.clone());
    let context = Arc::new(Context {
        settlement: settlement_check.settlement.clone(),
        billing,
        notify,
        names,
        events,
        echo: WatchEcho::default(),
        clock: ServerClock::default(),
        customers: customers.clone(),
        client: client.clone(),
    });
    context.clock.compare(&client).await;
    let (namespace, concurrency) = (config.namespace.clone(), config.concurrency);
    let home = lease_namespace.clone();
    let tasks = Tasks { context, retention, settlement_check, ledgers, customers, listener, home, namespace, concurrency };
    let work = async || tasks.run(shutdown.clone()).await;
    tracing::info!(namespace = config.namespace.as_deref().unwrap_or("(all)"), "operator is ready");
    if !config.leader_election {
        work().await;
        return Ok(());
    }
    let election =
        Election { namespace: lease_namespace, lease: config.lease_name, identity, lease_seconds: config.lease_seconds };
    leader::run_while_leader(client, election, shutdown.clone(), work).await
}
