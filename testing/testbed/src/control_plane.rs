//! A Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::certs::{self, Authority, Pair};
use crate::gobuild::Programs;
use crate::process::{Builder, Process, Signal};
use crate::recorded;
use crate::wait::{WAIT_TIMEOUT, free_port, port_is_free, wait_for};

/// The settings in which the control plane for tests and that of a complete node differ.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The directory for all files.
    pub directory: PathBuf,
    /// The name of the cluster and the context in its kubeconfig.
    pub name: &'static str,
    /// The address on which the API server listens.
    pub address: Ipv4Addr,
    /// The port of the API server, if it is free.
    pub preferred_port: Option<u16>,
    /// Whether the processes are recorded and outlive this process.
    pub recorded: bool,
    /// The range of ClusterIPs.
    pub service_range: &'static str,
    /// Whether a kubelet will join the cluster. The API server is then also a client of that kubelet.
    pub has_node: bool,
    /// Additional arguments of the API server.
    pub api_server_args: Vec<String>,
    /// Whether etcd waits for the disk before it acknowledges a write.
    pub fsync: bool,
}

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    settings: Settings,
    programs: Programs,
    etcd_port: u16,
    port: u16,
    processes: Vec<Process>,
    api_server: Option<Process>,
}

impl ControlPlane {
    /// Starts a new control plane and waits until it is ready. Deletes the previous contents of the
    /// directory.
    pub async fn start(settings: Settings, programs: &Programs) -> Result<Self> {
        let directory = &settings.directory;
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let port = match settings.preferred_port {
            Some(port) if port_is_free(settings.address, port) => port,
            _ => free_port(),
        };
        let mut plane =
            Self { etcd_port: free_port(), port, programs: programs.clone(), processes: Vec::new(), api_server: None, settings };
        plane.write_certificates()?;
        plane.start_etcd()?;
        plane.start_api_server().await?;
        plane.start_controller_manager()?;
        Ok(plane)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.settings.directory)
    }

    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    pub fn server(&self) -> String {
        format!("https://{}:{}", self.settings.address, self.port)
    }

    /// The URL of etcd for clients: gRPC, JSON and metrics.
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd_port)
    }

    /// Writes a kubeconfig for another component.
    pub fn write_kubeconfig(&self, file: &str, client: &Pair) -> Result<PathBuf> {
        let path = self.settings.directory.join(format!("{file}.kubeconfig"));
        let authority = self.settings.directory.join("certs/ca.crt");
        certs::write_kubeconfig(&path, &self.server(), &authority, client, self.settings.name)?;
        Ok(path)
    }

    fn write_certificates(&self) -> Result<()> {
        let directory = self.settings.directory.join("certs");
        let authority = Authority::create(&directory)?;
        let first_service: Ipv4Addr = first_address(self.settings.service_range)?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        authority.server(
            "apiserver",
            &[loopback, self.settings.address.into(), first_service.into()],
            &["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"],
        )?;
        certs::write_signing_key(&directory.join("service-accounts"))?;
        let admin = authority.client("admin", "testbed-admin", Some("system:masters"))?;
        let manager = authority.client("controller-manager", "system:kube-controller-manager", None)?;
        if self.settings.has_node {
            let address: IpAddr = self.settings.address.into();
            authority.server("kubelet", &[address], &[])?;
            authority.client("kubelet-client", "system:kube-apiserver", Some("system:masters"))?;
            let node = authority.client("node", &format!("system:node:{}", self.settings.name), Some("system:nodes"))?;
            let scheduler = authority.client("scheduler", "system:kube-scheduler", None)?;
            let proxy = authority.client("proxy", "system:kube-proxy", None)?;
            let dns = authority.client("dns", "testbed:dns", None)?;
            for (file, client) in [("kubelet", node), ("scheduler", scheduler), ("proxy", proxy), ("dns", dns)] {
                self.write_kubeconfig(file, &client)?;
            }
        }
        self.write_kubeconfig("controller-manager", &manager)?;
        let written = self.write_kubeconfig("admin", &admin)?;
        // The rename makes only complete files visible to readers.
        fs::rename(written, self.kubeconfig())?;
        Ok(())
    }

    /// Returns a builder for a component's process.
    pub fn component(&self, name: &str) -> Builder {
        let directory = &self.settings.directory;
        let builder = Process::builder(name, self.programs.path(name), &directory.join("log"));
        if self.settings.recorded { builder.recorded(directory) } else { builder }
    }

    fn start_etcd(&mut self) -> Result<()> {
        let client = self.etcd_url();
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut etcd = self
            .component("etcd")
            .arg("--data-dir")
            .arg(self.settings.directory.join("etcd"))
            .args(["--log-level=warn", "--auto-compaction-retention=1h"])
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .args(member(&peer));
        if !self.settings.fsync {
            // The data may be lost if the machine crashes: it is test data.
            etcd = etcd.arg("--unsafe-no-fsync");
        }
        self.processes.push(etcd.spawn()?);
        Ok(())
    }

    /// Starts the API server and waits until it is ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let certs = self.settings.directory.join("certs");
        let file = |flag: &str, name: &str| format!("--{flag}={}", certs.join(name).display());
        let mut builder = self
            .component("kube-apiserver")
            .arg(format!("--etcd-servers={}", self.etcd_url()))
            .arg(format!("--bind-address={}", self.settings.address))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--service-cluster-ip-range={}", self.settings.service_range))
            .arg(file("tls-cert-file", "apiserver.crt"))
            .arg(file("tls-private-key-file", "apiserver.key"))
            .arg(file("client-ca-file", "ca.crt"))
            .arg(file("service-account-key-file", "service-accounts.pub"))
            .arg(file("service-account-signing-key-file", "service-accounts.key"))
            // The address is explicit, since a machine without a default route has no default address.
            .arg(format!("--advertise-address={}", self.settings.address))
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg("--authorization-mode=Node,RBAC")
            .arg("--profiling=false")
            .args(&self.settings.api_server_args);
        builder = if self.settings.has_node {
            builder
                .arg(file("kubelet-client-certificate", "kubelet-client.crt"))
                .arg(file("kubelet-client-key", "kubelet-client.key"))
                .arg(file("kubelet-certificate-authority", "ca.crt"))
                // Without this argument, `exec` and `logs` would resolve the node's name.
                .arg("--kubelet-preferred-address-types=InternalIP")
        } else {
            // Loopback addresses may not be endpoints of a Service.
            builder.arg("--endpoint-reconciler-type=none")
        };
        let process = builder.spawn()?;
        let client = client(&self.kubeconfig()).await?;
        process
            .wait_until("the API server to be ready", WAIT_TIMEOUT, || async { is_ready(&client).await.then_some(()) })
            .await?;
        self.api_server = Some(process);
        Ok(())
    }

    /// Replaces etcd's data by those of a snapshot, with `etcdutl snapshot restore`.
    pub async fn restore_etcd(&mut self, snapshot: &Path) -> Result<()> {
        let mut restore = std::process::Command::new(self.programs.path("etcd"));
        restore.args(["snapshot", "restore"]).arg(snapshot);
        // A copy of the database has no hash.
        restore.args(["--skip-hash-check", "--bump-revision=1000000", "--mark-compacted"]);
        restore.args(member(&format!("http://127.0.0.1:{}", free_port())));
        self.change_etcd_data(|data| {
            std::fs::remove_dir_all(data)?;
            let output = restore.arg("--data-dir").arg(data).output()?;
            ensure!(output.status.success(), "etcdutl: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })
        .await
    }

    /// Stops the API server and etcd, calls `change` with etcd's data directory, and starts both again.
    pub async fn change_etcd_data(&mut self, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.kill_api_server()?;
        // etcd was started first.
        self.processes.remove(0).kill()?;
        change(&self.settings.directory.join("etcd"))?;
        self.start_etcd()?;
        self.processes.rotate_right(1);
        self.start_api_server().await
    }

    /// Kills the API server, as a crash would.
    pub fn kill_api_server(&mut self) -> Result<()> {
        match self.api_server.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Sends a signal to the API server. SIGSTOP suspends it: connections stay open, but it does not respond.
    pub fn signal_api_server(&self, signal: Signal) -> Result<()> {
        self.api_server.as_ref().context("the API server is stopped")?.signal(signal)
    }

    fn start_controller_manager(&mut self) -> Result<()> {
        let directory = &self.settings.directory;
        let manager = self
            .component("kube-controller-manager")
            .arg(format!("--kubeconfig={}", directory.join("controller-manager.kubeconfig").display()))
            .arg(format!("--service-account-private-key-file={}", directory.join("certs/service-accounts.key").display()))
            .arg(format!("--root-ca-file={}", directory.join("certs/ca.crt").display()))
            .args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0", "--profiling=false"])
            .spawn()?;
        self.processes.push(manager);
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Clients stop before their servers; otherwise they would log errors.
        while self.processes.pop().is_some() {}
    }
}

/// Records that the start of the control plane in this directory is complete.
pub(crate) fn mark_ready(directory: &Path) -> Result<()> {
    fs::write(directory.join("ready"), "").context("cannot record that the start is complete")
}

/// Whether the start of the control plane in this directory was completed.
pub(crate) fn was_ready(directory: &Path) -> bool {
    directory.join("ready").exists()
}

/// The path of the kubeconfig of a control plane in this directory.
pub(crate) fn kubeconfig(directory: &Path) -> PathBuf {
    directory.join("kubeconfig")
}

/// Whether all recorded processes of a control plane run and its API server is ready.
pub(crate) async fn is_healthy(directory: &Path) -> bool {
    if !was_ready(directory) || !recorded::all_alive(directory) {
        return false;
    }
    let Ok(client) = client(&kubeconfig(directory)).await else { return false };
    // Its processes run, so the control plane is only slow. A test that considered it dead would stop it while other tests
    // use it.
    wait_for("the API server", WAIT_TIMEOUT, || async { is_ready(&client).await.then_some(()) }).await.is_ok()
}

/// A client for this kubeconfig, independent of the environment.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

async fn is_ready(client: &Client) -> bool {
    let request = kube::client::Body::empty();
    let request = match axum::http::Request::get("/readyz").body(request) {
        Ok(request) => request,
        Err(_) => return false,
    };
    match tokio::time::timeout(Duration::from_secs(2), client.send(request)).await {
        Ok(Ok(response)) => response.status() == 200,
        _ => false,
    }
}

/// The first usable address of a range, which is the ClusterIP of the Service `kubernetes`.
fn first_address(range: &str) -> Result<Ipv4Addr> {
    let network: Ipv4Addr = range.split('/').next().unwrap_or_default().parse()?;
    Ok(Ipv4Addr::from(u32::from(network) + 1))
}

/// The arguments of etcd and etcdutl about the only member of the cluster, which has this URL for peers.
fn member(peer: &str) -> [String; 3] {
    ["--name=testbed".to_owned(), format!("--initial-advertise-peer-urls={peer}"), format!("--initial-cluster=testbed={peer}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_first_address() {
        assert_eq!(first_address("10.96.0.0/16").unwrap(), Ipv4Addr::new(10, 96, 0, 1));
    }
}
