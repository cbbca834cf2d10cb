//! The HTTP server for health checks and metrics. It serves the cluster, not clients.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use axum_prometheus::metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::{server, shutdown::Shutdown};

/// How long a readiness check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A readiness check. It returns the reason if the process cannot do its work now.
pub type ReadyCheck = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Creates a [`ReadyCheck`] from an async closure.
pub fn ready_when<F, Fut>(check: F) -> ReadyCheck
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), String>> + Send + 'static,
{
    Arc::new(move || Box::pin(check()))
}

/// Serves `/livez`, `/readyz` and `/metrics` (Prometheus text) until shutdown.
///
/// # Errors
/// If the address cannot be bound, or a metrics recorder is already installed.
pub async fn serve(address: SocketAddr, ready: ReadyCheck, shutdown: Shutdown) -> anyhow::Result<()> {
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])?
        .install_recorder()?;
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(async |State(metrics): State<PrometheusHandle>| metrics.render()).with_state(metrics.clone()));
    let listener = server::bind(address).await?;
    tokio::spawn(async move {
        // Without upkeep, the samples of the histograms would accumulate.
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            metrics.run_upkeep();
        }
    });
    tokio::spawn(server::run(listener, router, shutdown));
    Ok(())
}

async fn readyz(State(check): State<ReadyCheck>) -> (StatusCode, String) {
    match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the check timed out\n".to_owned()),
    }
}
