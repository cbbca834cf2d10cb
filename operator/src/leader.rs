//! Leader election: only one of several replicas is active.
//!
//! A Lease is not a fence: a leader that was paused may continue for a moment after another replica
//! took over. Two other things make this harmless: the idempotency key of each charge, and the
//! resource version in each status write.

use std::{pin::pin, time::Duration};

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerBuilder};
use orders_service::{kubernetes::WATCH_SECONDS, shutdown::Shutdown};
use tokio::{sync::watch::Receiver, task::JoinHandle, time::timeout};

use crate::kube::holder;

/// How long the release of the Lease may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The delay before another attempt to acquire the Lease. This is the default of client-go.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

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

impl Election {
    /// The task that acquires and renews the Lease, and whether this replica is the leader.
    async fn acquire(&self, client: &Client) -> anyhow::Result<Renewal> {
        let manager = LeaseManagerBuilder::new(client.clone(), &self.lease)
            .with_namespace(&self.namespace)
            .with_identity(&self.identity)
            .with_create_mode(LeaseCreateMode::AutoCreate)
            .with_duration(self.lease_seconds)
            .with_grace(self.lease_seconds / 3)
            .build()
            .await
            .with_context(|| format!("Lease {}/{}", self.namespace, self.lease))?;
        let (is_leader, task) = manager.watch().await;
        Ok(Renewal { is_leader, task })
    }

    /// Calls [`Self::acquire`] until it succeeds.
    async fn acquire_again(&self, client: &Client) -> Renewal {
        loop {
            match self.acquire(client).await {
                Ok(renewal) => return renewal,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the Lease cannot be read; retrying"),
            }
            tokio::time::sleep(RETRY_PERIOD).await;
        }
    }

    /// Waits until the holder of the Lease releases it. If the Lease has no holder at the start, waits for
    /// `period`: the task that acquires it has that long.
    async fn released(&self, client: &Client, period: Duration) {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &self.namespace);
        let only_this = watcher::Config::default().fields(&format!("metadata.name={}", self.lease)).timeout(WATCH_SECONDS);
        let mut events = pin!(watcher(leases, only_this).default_backoff());
        let mut was_held = false;
        let mut is_free = false;
        loop {
            let next = async { if is_free { timeout(period, events.next()).await } else { Ok(events.next().await) } };
            match next.await {
                Err(_) | Ok(None) => return,
                Ok(Some(Ok(Event::Apply(lease) | Event::InitApply(lease)))) => {
                    is_free = holder(&lease).is_empty();
                    if is_free && was_held {
                        return;
                    }
                    was_held |= !is_free;
                }
                Ok(Some(Ok(Event::Delete(_)))) => return,
                // The Lease expires if it is not released, so it does not matter if it cannot be watched.
                Ok(Some(Ok(Event::Init | Event::InitDone) | Err(_))) => {}
            }
        }
    }
}

/// The task that acquires and renews the Lease.
struct Renewal {
    is_leader: Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

impl Renewal {
    async fn wait_for(&mut self, is_leader: bool) -> anyhow::Result<()> {
        let changed = self.is_leader.wait_for(|current| *current == is_leader).await;
        changed.map(drop).context("the task that renews the Lease ended")
    }

    /// Ends the task, which releases the Lease if this replica holds it.
    async fn release(self) {
        drop(self.is_leader);
        if timeout(RELEASE_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("the Lease was not released in time; it expires");
        }
    }
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
    let mut renewal = election.acquire(&client).await?;
    metrics::gauge!("orders_leading").set(0.0);
    let stop = shutdown.clone().requested();
    tokio::pin!(stop);
    let mut retry_period = RETRY_PERIOD;
    loop {
        tokio::select! {
            () = &mut stop => break,
            acquired = renewal.wait_for(true) => acquired?,
            // The renewal would wait until the time at which the Lease would have expired. If the API
            // server is slow, the next one gets more time to acquire the Lease.
            () = election.released(&client, retry_period) => {
                renewal.release().await;
                renewal = tokio::select! {
                    () = &mut stop => return Ok(()),
                    renewal = election.acquire_again(&client) => renewal,
                };
                retry_period = (retry_period * 2).min(Duration::from_secs(election.lease_seconds).max(RETRY_PERIOD));
                continue;
            }
        }
        retry_period = RETRY_PERIOD;
        tracing::info!(identity = election.identity, "acquired the Lease; this replica is the leader");
        metrics::gauge!("orders_leading").set(1.0);
        tokio::select! {
            // After a shutdown this returns once the passes in progress are finished.
            () = work() => break,
            lost = renewal.wait_for(false) => {
                lost?;
                tracing::warn!("lost the Lease; another replica is the leader");
                metrics::gauge!("orders_leading").set(0.0);
            }
        }
    }
    renewal.release().await;
    Ok(())
}
