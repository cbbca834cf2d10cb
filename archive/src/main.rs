//! The archive service: serves the HTTP API.

use std::{sync::Arc, time::Duration};

use orders_archive::{
    config::Config,
    routes::{self, Archive, Callers, MAX_BODY},
    store::{MIGRATIONS, Store},
};
use orders_service::{admin, arguments, auth::Authenticator, database::Database, kubernetes, server, shutdown::Shutdown};
use secrecy::ExposeSecret;

/// The concurrency is lower than in the other services, because each request may have a body of
/// [`MAX_BODY`] bytes.
const LIMITS: server::Limits = server::Limits { timeout: Duration::from_secs(8), concurrency: 64 };

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

    let archive = Archive {
        store: Store::new(database),
        authenticator: Authenticator::new(client, config.token_audience),
        callers: Arc::new(Callers {
            operator: config.operator_account,
            api_server: config.api_server_account,
            audit: config.audit_account,
        }),
    };
    let listener = server::bind(config.listen_addr).await?;
    tracing::info!(address = %config.listen_addr, "the archive is ready");
    server::run(listener, server::with_bounds_and_body(routes::router(archive), LIMITS, MAX_BODY), shutdown).await;
    Ok(())
}
