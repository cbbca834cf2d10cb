//! Leader election: only one of several replicas is active.
//!
//! A Lease is not a fence: a leader that was paused may continue for a moment after another replica
//! took over. Two other things make this harmless: the idempotency key of each charge, and the
//! resource version in each status write.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube_lease_manager::{LeaseCreateMode, LeaseManagerBuilder};
use orders_service::shutdown::Shutdown;

/// How long the release of the Lease may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The Lease of the election, and the identity of this replica.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// The identity under which this replica holds the Lease.
    pub identity: String,
    /// Seconds after which another replica may acquire the Lease of a holder that no longer renews it.
    pub lease_seconds: u64,
}

/// Runs `work` while this replica is the leader, until shutdown. `work` is dropped when the Lease is
/// lost, and started anew when the Lease is acquired again. At the end the Lease is released, so
/// that another replica takes over at once.
///
/// # Errors
/// If the Lease cannot be read at the start, or if the task that renews the Lease ends.
pub async fn run_while_leader(
    client: Client,
    election: Election,
    shutdown: Shutdown,
    work: impl AsyncFn(),
) -> anyhow::Result<()> {
    let manager = LeaseManagerBuilder::new(client, &election.lease)
        .with_namespace(&election.namespace)
        .with_identity(&election.identity)
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .with_duration(election.lease_seconds)
        .with_grace(election.lease_seconds / 3)
        .build()
        .await
        .with_context(|| format!("Lease {}/{}", election.namespace, election.lease))?;
    let (mut is_leader, renewal) = manager.watch().await;
    metrics::gauge!("orders_leading").set(0.0);
    let stop = shutdown.clone().requested();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            acquired = is_leader.wait_for(|is_leader| *is_leader) => {
                acquired.context("the task that renews the Lease ended")?;
            }
        }
        tracing::info!(identity = election.identity, "acquired the Lease; this replica is the leader");
        metrics::gauge!("orders_leading").set(1.0);
        tokio::select! {
            // After a shutdown this returns once the passes in progress are finished.
            () = work() => break,
            lost = is_leader.wait_for(|is_leader| !is_leader) => {
                lost.context("the task that renews the Lease ended")?;
                tracing::warn!("lost the Lease; another replica is the leader");
                metrics::gauge!("orders_leading").set(0.0);
            }
        }
    }
    drop(is_leader);
    if tokio::time::timeout(RELEASE_TIMEOUT, renewal).await.is_err() {
        tracing::warn!("the Lease was not released in time; it expires");
    }
    Ok(())
}
