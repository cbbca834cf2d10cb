//! The api-server: reads its configuration and serves the public HTTP API.

use std::{sync::Arc, time::Duration};

use orders_api_server::{
    archive::Archive,
    config::Config,
    cross_origin,
    customers::Customers,
    ledger_check::LedgerCheck,
    orders::Orders,
    prefer::MAX_WAIT,
    proxy::Service,
    routes::{self, AppState, MAX_STREAMS},
};
use orders_service::{admin, arguments, http_client::Peer, kubernetes, server, shutdown::Shutdown, token_file::TokenFile};
use tokio::sync::Semaphore;

/// The limits of the public HTTP API. A request may wait until the order is placed, and then for
/// its outcome.
const LIMITS: server::Limits = server::Limits { timeout: MAX_WAIT.saturating_add(Duration::from_secs(15)), concurrency: 2048 };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = arguments::parse();
    config.log.init()?;
    let shutdown = Shutdown::on_signals()?;
    let client = kubernetes::client().await?;
    let namespace = config.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let archive = match &config.archive_url {
        Some(url) => Some(Archive::new(url, TokenFile::new(config.archive_token_file), namespace.clone())?),
        None => None,
    };
    let customers = Customers::new(client.clone(), &namespace);
    let orders = Orders::new(client.clone(), &namespace, archive, config.max_live_orders);

    let billing_token = TokenFile::new(config.billing_token_file);
    let ledger = Peer::new(&config.billing_url, Some(billing_token.clone()), Duration::from_secs(5), 4096)?;
    let ledger_check = LedgerCheck::start(client, namespace.clone(), ledger);

    let cache = orders.cache.clone();
    let ready = admin::ready_when(move || {
        let (cache, ledger_check) = (cache.clone(), ledger_check.clone());
        async move { ledger_check.check_ready().and(cache.check_ready().await) }
    });
    admin::serve(config.admin_addr, ready.clone(), shutdown.clone()).await?;

    let app = AppState {
        orders,
        customers,
        billing: Service::new("billing", &config.billing_url, Some(billing_token))?,
        notify: Service::new("notify", &config.notify_url, None)?,
        wait: Duration::from_secs(config.wait_seconds),
        mail_wait: Duration::from_secs(config.mail_wait_seconds),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        ready,
        shutdown: shutdown.clone(),
    };
    let listener = server::bind(config.listen_addr).await?;
    tracing::info!(address = %config.listen_addr, namespace, "the api-server is ready");
    // A preflight is answered before its method is refused.
    let router = cross_origin::protect(server::with_bounds(routes::router(app), LIMITS), config.cors_origins);
    server::run(listener, router, shutdown).await;
    Ok(())
}
