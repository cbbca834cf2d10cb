//! The client of the Kubernetes API, which notices within [`READ_TIMEOUT`] that a connection is dead.
//!
//! A firewall or a router that forgets a connection drops its packets and reports nothing. TCP notices
//! this only when it has something to send, and a watch only receives.

use std::time::Duration;

use kube::{Client, Config};

/// How long the API server keeps a watch open, in seconds. A watch that has not ended five seconds later
/// counts as dead, and is opened again where it was. Each watch uses it (`watcher::Config::timeout`).
pub const WATCH_SECONDS: u32 = 20;

/// How long a connection may be silent. It is longer than a quiet watch is.
const READ_TIMEOUT: Duration = Duration::from_secs(25);

/// Creates a client from `KUBECONFIG`, or from the service account of the pod.
///
/// # Errors
/// If neither exists, or if it is not valid.
pub async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    config.read_timeout = Some(READ_TIMEOUT);
    // The calls and their tokens stay in the cluster, also if its pods have HTTPS_PROXY.
    config.proxy_url = None;
    // The time counts from the request, if that is later than the last response.
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
