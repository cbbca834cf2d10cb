//! The billing service: serves the HTTP API and handles requests from the broker.

use std::{sync::Arc, time::Duration};

use orders_billing::{
    config::Config,
    ledger::{Ledger, MIGRATIONS},
    listener,
    routes::{self, Billing, Callers},
};
use orders_contracts::topology::Service;
use orders_service::{admin, arguments, auth::Authenticator, database::Database, kubernetes, server, shutdown::Shutdown};
use secrecy::ExposeSecret;

/// A ledger call takes a few milliseconds. If all database connections are in use, the call fails
/// well before this timeout.
const LIMITS: server::Limits = server::Limits { timeout: Duration::from_secs(8), concurrency: 512 };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = arguments::parse();
    config.log.init()?;
    let shutdown = Shutdown::on_signals()?;
    let client = kubernetes::client().await?;
    let database = Database::open(config.database_url.expose_secret(), config.database_connections, MIGRATIONS).await?;

    let pinged = database.clone();
    let ready = admin::ready_when(move || {
        let database = pinged.clone();
        async move { database.ping().await }
    });
    admin::serve(config.admin_addr, ready, shutdown.clone()).await?;

    let ledger = Ledger::new(database);
    let listening = match config.broker.connect(Service::Billing).await? {
        Some(broker) => tokio::spawn(listener::listen(broker, ledger.clone(), shutdown.clone())),
        None => tokio::spawn(shutdown.clone().requested()),
    };
    let billing = Billing {
        ledger,
        authenticator: Authenticator::new(client, config.token_audience),
        callers: Arc::new(Callers {
            operator: config.operator_account,
            api_server: config.api_server_account,
            audit: config.audit_account,
        }),
    };
    let listener = server::bind(config.listen_addr).await?;
    tracing::info!(address = %config.listen_addr, "billing is ready");
    let serving = server::run(listener, server::with_bounds(routes::router(billing), LIMITS), shutdown.clone());
    shutdown.serve_with_listener(serving, listening).await
}
