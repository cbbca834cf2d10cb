//! The notify service: serves the HTTP API, handles outcomes from the broker and delivers messages.

use std::{sync::Arc, time::Duration};

use orders_contracts::topology::Service;
use orders_notify::{
    config::Config,
    delivery::Delivery,
    listener,
    log::{Log, MIGRATIONS},
    mailer::Mailer,
    routes::{self, Notify},
};
use orders_service::{admin, arguments, auth::Authenticator, database::Database, kubernetes, server, shutdown::Shutdown};
use secrecy::ExposeSecret;

const LIMITS: server::Limits = server::Limits { timeout: Duration::from_secs(8), concurrency: 512 };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = arguments::parse();
    config.log.init()?;
    let shutdown = Shutdown::on_signals()?;
    let client = kubernetes::client().await?;
    let mailer = Mailer::new(&config.mail)?;
    let database = Database::open(config.database_url.expose_secret(), config.database_connections, MIGRATIONS).await?;

    let pinged = database.clone();
    let ready = admin::ready_when(move || {
        let database = pinged.clone();
        async move { database.ping().await }
    });
    admin::serve(config.admin_addr, ready, shutdown.clone()).await?;

    let log = Log::new(database);
    let broker = config.broker.connect(Service::Notify).await?;
    let delivery = Delivery::new(log.clone(), mailer, config.smtp_connections, config.max_attempts).with_broker(broker.clone());
    tokio::spawn(delivery.clone().run(shutdown.clone()));
    let listening = match broker {
        Some(broker) => tokio::spawn(listener::listen(broker, delivery.clone(), shutdown.clone())),
        None => tokio::spawn(shutdown.clone().requested()),
    };
    let notify = Notify {
        log,
        delivery: delivery.clone(),
        authenticator: Authenticator::new(client, config.token_audience),
        operator_account: Arc::from(config.operator_account),
        audit_account: config.audit_account.map(Arc::from),
    };
    let listener = server::bind(config.listen_addr).await?;
    tracing::info!(address = %config.listen_addr, "notify is ready");
    let serving = server::run(listener, server::with_bounds(routes::router(notify), LIMITS), shutdown.clone());
    let served = shutdown.serve_with_listener(serving, listening).await;
    // Wait only now, because the last requests and outcomes may also have started attempts.
    delivery.finish().await;
    served
}
