//! Leader election: of several replicas, one works.
//!
//! A Lease is no fence: a leader that was paused may go on for a moment after
//! another took over. What keeps that harmless is the charge's key and the
//! resource version in each status write, not the Lease.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube_lease_manager::{LeaseCreateMode, LeaseManagerBuilder};
use orders_service::shutdown::Shutdown;

/// How long giving the Lease back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which Lease, held as whom, for how long.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Who holds it.
    pub identity: String,
    /// Seconds until another may take it from a holder that is gone.
    pub seconds: u64,
}

/// Does `work` while this replica is the leader, until shutdown. Work is dropped
/// when the Lease is lost, and begun anew when it is won again. At the end the
/// Lease is given back, so that another replica takes over at once.
///
/// # Errors
/// If the Lease cannot be looked at in the first place.
pub async fn while_leading(client: Client, election: Election, shutdown: Shutdown, work: impl AsyncFn()) -> anyhow::Result<()> {
    let manager = LeaseManagerBuilder::new(client, &election.lease)
        .with_namespace(&election.namespace)
        .with_identity(&election.identity)
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .with_duration(election.seconds)
        .with_grace(election.seconds / 3)
        .build()
        .await
        .with_context(|| format!("Lease {}/{}", election.namespace, election.lease))?;
    let (mut leading, task) = manager.watch().await;
    metrics::gauge!("orders_leading").set(0.0);
    let end = shutdown.clone().requested();
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            won = leading.wait_for(|leads| *leads) => { won.context("the lease task ended")?; }
        }
        tracing::info!(identity = election.identity, "leading");
        metrics::gauge!("orders_leading").set(1.0);
        tokio::select! {
            // Ends by itself after a shutdown, with the orders under way finished.
            () = work() => break,
            lost = leading.wait_for(|leads| !leads) => {
                lost.context("the lease task ended")?;
                tracing::warn!("lost the Lease; another replica leads");
                metrics::gauge!("orders_leading").set(0.0);
            }
        }
    }
    drop(leading);
    if tokio::time::timeout(RELEASE_TIMEOUT, task).await.is_err() {
        tracing::warn!("the Lease was not given back in time; it runs out by itself");
    }
    Ok(())
}
