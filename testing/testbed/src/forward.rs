//! Forwards connections from a port of this machine to a Service, as kind's port mappings do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::{WAIT_TIMEOUT, control_plane, process::Process, recorded, wait_for};

/// A Service, and the address of this machine at which it is reachable.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub listen: SocketAddr,
    pub namespace: String,
    pub service: String,
    pub kubeconfig: PathBuf,
}

/// Forwards connections until an error occurs.
pub(crate) async fn serve(route: Route) -> Result<()> {
    let listener = listen(route.listen).await?;
    let client = control_plane::client(&route.kubeconfig).await?;
    let target = &*Box::leak(Box::new(Target {
        services: Api::namespaced(client, &route.namespace),
        name: route.service,
        last: Mutex::new(None),
    }));
    println!("{} to {}/{}", route.listen, route.namespace, target.name);
    loop {
        let (mut incoming, peer) = listener.accept().await?;
        tokio::spawn(async move {
            let result = async {
                let mut outgoing = target.connect().await?;
                incoming.set_nodelay(true)?;
                outgoing.set_nodelay(true)?;
                // The client and the Service handle a broken connection themselves.
                let _ = copy_bidirectional(&mut incoming, &mut outgoing).await;
                Ok::<_, anyhow::Error>(())
            };
            if let Err(error) = result.await {
                eprintln!("{peer}: {error:#}");
            }
        });
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; stop the process that uses it, or choose another address with --listen")
    })
}

struct Target {
    services: Api<Service>,
    name: String,
    /// The last address that worked. A Service keeps its ClusterIP for its lifetime.
    last: Mutex<Option<SocketAddr>>,
}

impl Target {
    async fn connect(&self) -> Result<TcpStream> {
        let last = *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(address) = last
            && let Ok(stream) = connect(address).await
        {
            return Ok(stream);
        }
        // The Service may have been created again, with another ClusterIP.
        let address = self.look_up().await?;
        let stream = connect(address).await.with_context(|| format!("service {} at {address} does not respond", self.name))?;
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(address);
        Ok(stream)
    }

    async fn look_up(&self) -> Result<SocketAddr> {
        let service = tokio::time::timeout(Duration::from_secs(5), self.services.get(&self.name))
            .await
            .context("the API server does not respond")?
            .with_context(|| format!("cannot look up service {}", self.name))?;
        address(&service).with_context(|| format!("service {} has no address and port", self.name))
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    Ok(tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address)).await??)
}

/// The Service's ClusterIP with the port named `http`, or else with its first port.
fn address(service: &Service) -> Option<SocketAddr> {
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.as_deref().unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some("http")).or(ports.first())?;
    Some((spec.cluster_ip.as_ref()?.parse::<std::net::IpAddr>().ok()?, u16::try_from(port.port).ok()?).into())
}

/// Forwards connections with `kubectl port-forward`, for clusters whose ClusterIPs are not reachable
/// from this machine (kind, a user's own cluster). Restarts kubectl when the pod behind the
/// connection is deleted.
pub(crate) async fn serve_with_kubectl(route: Route) -> Result<()> {
    drop(listen(route.listen).await?);
    loop {
        let status = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&route.kubeconfig)
            .args(["--namespace", &route.namespace, "port-forward", "--address", &route.listen.ip().to_string()])
            .arg(format!("service/{}", route.service))
            .arg(format!("{}:80", route.listen.port()))
            .kill_on_drop(true)
            .status()
            .await
            .context("cannot run kubectl")?;
        eprintln!("kubectl port-forward exited ({status}); restarting it");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Starts a forwarder that outlives this program. It replaces an earlier one.
pub(crate) async fn start(route: &Route, directory: &Path, with_kubectl: bool) -> Result<()> {
    for one in recorded::list(directory)?.iter().filter(|one| one.name == NAME) {
        one.stop(Duration::from_secs(2)).await?;
    }
    let mut builder = Process::builder(NAME, std::env::current_exe()?, &directory.join("log"))
        .args(["forward", "--listen", &route.listen.to_string()])
        .args(["--namespace", &route.namespace, "--service", &route.service])
        .arg("--kubeconfig")
        .arg(&route.kubeconfig);
    if with_kubectl {
        builder = builder.arg("--with-kubectl");
    }
    let process = builder.recorded(directory).spawn()?;
    let outcome =
        process.wait_until("the forwarder to listen", WAIT_TIMEOUT, || async { connect(route.listen).await.ok() }).await;
    if let Err(error) = outcome {
        process.kill()?;
        bail!(error);
    }
    Ok(())
}

/// The name under which a forwarder is recorded.
const NAME: &str = "forward";

/// Waits for an HTTP response through the forwarder, with any status.
pub(crate) async fn wait_for_response(listen: SocketAddr, limit: Duration) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let url = format!("http://{listen}/");
    wait_for(&format!("a response from {url}"), limit, || async { client.get(&url).send().await.ok() }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_port_named_http_is_preferred() {
        let service: Service = serde_json::from_value(json!({"spec": {"clusterIP": "10.96.1.2", "ports": [
            {"name": "admin", "port": 9090}, {"name": "http", "port": 80}]}}))
        .unwrap();
        assert_eq!(address(&service), "10.96.1.2:80".parse().ok());
    }

    #[test]
    fn a_headless_service_has_no_address() {
        let service: Service = serde_json::from_value(json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}})).unwrap();
        assert_eq!(address(&service), None);
    }
}
