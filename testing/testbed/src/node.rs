//! A complete Kubernetes node on this machine: control plane, scheduler,
//! container runtime, kubelet, kube-proxy and DNS.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use tokio::process::Command;

use crate::cache::Cache;
use crate::command::{SHORT_TIMEOUT, run, run_with_input};
use crate::containerd::{Containerd, STATE};
use crate::control_plane::{self, ControlPlane, Settings};
use crate::gobuild::{self, Programs, Set};
use crate::network::{BRIDGE_ADDRESS, SERVICE_RANGE};
use crate::node_config::{self as config, VOLUMES};
use crate::wait::{WAIT_TIMEOUT, free_port, port_is_free, wait_for};
use crate::{buildah, cgroups, hosts, network, packages, recorded};

/// The name of the node, and of the cluster and the context in its kubeconfig.
const NAME: &str = "orders-testbed";

/// The maximum number of starts of a kubelet that exits immediately.
const KUBELET_STARTS: u32 = 20;

/// The time limit for the kubelet to become ready.
const KUBELET_LIMIT: Duration = WAIT_TIMEOUT;

/// The directory of the node's state.
pub(crate) fn directory(cache: &Cache) -> PathBuf {
    cache.run("node")
}

/// Starts the node, or does nothing if it is healthy. An unhealthy node is stopped
/// first: the content of a test cluster is not worth a repair.
pub(crate) async fn up(cache: &Cache) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a node needs root (network, cgroups and mounts); run this with sudo, or use CLUSTER=kind");
    }
    packages::ensure(packages::NODE).await?;
    let programs = gobuild::ensure(cache, Set::Node).await?;
    let directory = directory(cache);
    if is_healthy(cache).await {
        recycle_volumes(&directory, &programs).await?;
        println!("the node runs: KUBECONFIG={}", control_plane::kubeconfig(&directory).display());
        return Ok(());
    }
    if directory.exists() {
        println!("removing the remains of an earlier node");
        down(cache).await?;
    }
    if let Some(other) = other_owner(cache) {
        bail!("a node of another cache runs; stop it with `ORDERS_CACHE={other} testbed down node`");
    }
    cgroups::check_unused()?;
    let started = Instant::now();
    if let Err(error) = start(cache, &programs).await {
        stop_processes(cache).await.context("the node could not be stopped; run `testbed down node`")?;
        return Err(error);
    }
    control_plane::mark_ready(&directory)?;
    println!("node ready in {:.1?}: KUBECONFIG={}", started.elapsed(), control_plane::kubeconfig(&directory).display());
    Ok(())
}

async fn start(cache: &Cache, programs: &Programs) -> Result<()> {
    let directory = directory(cache);
    fs::create_dir_all(STATE)?;
    fs::write(owner_file(), cache.path("").as_os_str().as_encoded_bytes())?;
    network::up(Path::new(STATE)).await?;
    let plane = ControlPlane::start(settings(&directory), programs).await?;
    start_containerd(cache, programs).await?;
    start_scheduler(&plane)?;
    start_kubelet(&plane).await?;
    start_proxy(&plane)?;
    start_dns(&plane)?;
    apply_manifests(&directory, programs).await?;
    wait_ready(&control_plane::client(&plane.kubeconfig()).await?)
        .await
        .with_context(|| format!("the node did not become ready; see the logs in {}", directory.join("log").display()))
}

/// The file that names the cache to which the node belongs: a machine can run only one node.
fn owner_file() -> PathBuf {
    Path::new(STATE).join("cache")
}

fn other_owner(cache: &Cache) -> Option<String> {
    let owner = fs::read_to_string(owner_file()).ok()?;
    (owner.as_bytes() != cache.path("").as_os_str().as_encoded_bytes()).then_some(owner)
}

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        name: NAME,
        // The address of the bridge, not all addresses: pods and this machine
        // can reach it, other machines cannot.
        address: BRIDGE_ADDRESS,
        preferred_port: Some(6443),
        recorded: true,
        service_range: SERVICE_RANGE,
        has_node: true,
        api_server_args: Vec::new(),
        fsync: false,
    }
}

async fn start_containerd(cache: &Cache, programs: &Programs) -> Result<()> {
    let containerd = Containerd::new(cache, programs);
    let pause = buildah::pause_archive(cache, programs).await?;
    let plugins = first_existing(&["/usr/lib/cni", "/opt/cni/bin"])?;
    let runc = first_existing(&["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"])?;
    let state = Path::new(STATE);
    fs::create_dir_all(directory(cache).join("cni"))?;
    fs::write(directory(cache).join("cni/10-testbed.conflist"), config::pod_network(state))?;
    containerd.start(buildah::PAUSE, &plugins, &runc).await?;
    if !containerd.images().await?.iter().any(|image| image == buildah::PAUSE) {
        containerd.import(&pause).await?;
    }
    Ok(())
}

fn first_existing(paths: &[&str]) -> Result<PathBuf> {
    let found = paths.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).with_context(|| format!("none of {paths:?} exists"))
}

fn start_scheduler(plane: &ControlPlane) -> Result<()> {
    plane
        .component("kube-scheduler")
        .arg(format!("--kubeconfig={}", plane.directory().join("scheduler.kubeconfig").display()))
        .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
        .spawn()
        .map(drop)
}

/// Starts the kubelet, and restarts it if it exits, as systemd would. It exits if it starts after containerd
/// responds and before containerd's CRI service does.
async fn start_kubelet(plane: &ControlPlane) -> Result<()> {
    let directory = plane.directory();
    let port = if port_is_free(BRIDGE_ADDRESS, 10250) { 10250 } else { free_port() };
    let file = directory.join("kubelet.yaml");
    fs::write(&file, config::kubelet(directory, &Containerd::socket(), port))?;
    let mut starts = 1;
    loop {
        let kubelet = plane
            .component("kubelet")
            .arg(format!("--config={}", file.display()))
            .arg(format!("--kubeconfig={}", directory.join("kubelet.kubeconfig").display()))
            .arg(format!("--root-dir={}", directory.join("kubelet").display()))
            .arg(format!("--cert-dir={}", directory.join("certs").display()))
            .arg(format!("--hostname-override={NAME}"))
            .arg(format!("--node-ip={BRIDGE_ADDRESS}"))
            .spawn()?;
        let serves = || async { tokio::net::TcpStream::connect((BRIDGE_ADDRESS, port)).await.ok() };
        let served = kubelet.wait_until("the kubelet to serve", KUBELET_LIMIT, serves).await;
        if served.is_ok() || kubelet.exit_status().is_none() || starts == KUBELET_STARTS {
            return served.map(drop);
        }
        starts += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn start_proxy(plane: &ControlPlane) -> Result<()> {
    let file = plane.directory().join("proxy.yaml");
    fs::write(&file, config::proxy(plane.directory(), NAME, free_port(), free_port()))?;
    plane.component("kube-proxy").arg(format!("--config={}", file.display())).spawn().map(drop)
}

fn start_dns(plane: &ControlPlane) -> Result<()> {
    let file = plane.directory().join("Corefile");
    fs::write(&file, config::dns(plane.directory()))?;
    plane.component("coredns").arg("-conf").arg(file).spawn().map(drop)
}

async fn apply_manifests(directory: &Path, programs: &Programs) -> Result<()> {
    let volumes = directory.join("volumes");
    for number in 1..=VOLUMES {
        fs::create_dir_all(volumes.join(config::volume_name(number)))?;
    }
    kubectl_apply(directory, programs, &config::manifests(&volumes, NAME)).await
}

async fn kubectl_apply(directory: &Path, programs: &Programs, manifests: &str) -> Result<()> {
    let mut command = Command::new(programs.path("kubectl"));
    command.arg("--kubeconfig").arg(control_plane::kubeconfig(directory));
    command.args(["apply", "--server-side", "--filename", "-"]);
    run_with_input(SHORT_TIMEOUT, &mut command, Some(manifests)).await.map(drop)
}

async fn wait_ready(client: &Client) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    wait_for("the node to be ready", WAIT_TIMEOUT, || async { is_ready(&nodes).await.then_some(()) }).await
}

async fn is_ready(nodes: &Api<Node>) -> bool {
    let Ok(Some(node)) = nodes.get_opt(NAME).await else { return false };
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    // The taint is removed shortly after the condition is set.
    ready && node.spec.and_then(|spec| spec.taints).unwrap_or_default().is_empty()
}

/// Whether the node can run pods.
pub(crate) async fn is_healthy(cache: &Cache) -> bool {
    let directory = directory(cache);
    if !control_plane::is_healthy(&directory).await {
        return false;
    }
    match control_plane::client(&control_plane::kubeconfig(&directory)).await {
        Ok(client) => is_ready(&Api::all(client)).await,
        Err(_) => false,
    }
}

/// Empties volumes whose claim was deleted, and makes them available to new claims,
/// as a provisioner would.
async fn recycle_volumes(directory: &Path, programs: &Programs) -> Result<()> {
    let client = control_plane::client(&control_plane::kubeconfig(directory)).await?;
    let volumes = Api::<PersistentVolume>::all(client);
    let mut released = 0;
    for volume in volumes.list(&ListParams::default()).await? {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Released") {
            let name = volume.name_any();
            volumes.delete(&name, &DeleteParams::default()).await?;
            wait_for("the deletion of a volume", SHORT_TIMEOUT, || async {
                matches!(volumes.get_opt(&name).await, Ok(None)).then_some(())
            })
            .await?;
            let data = directory.join("volumes").join(&name);
            fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
            released += 1;
        }
    }
    if released > 0 {
        apply_manifests(directory, programs).await?;
    }
    Ok(())
}

/// Stops the node, in any state. Deletes its content except the images.
pub(crate) async fn down(cache: &Cache) -> Result<()> {
    stop_processes(cache).await?;
    let own = directory(cache);
    let state = Path::new(STATE).to_owned();
    let paths = if other_owner(cache).is_some() { vec![own] } else { vec![own, state] };
    for path in paths {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Stops all processes and keeps the logs.
async fn stop_processes(cache: &Cache) -> Result<()> {
    let directory = directory(cache);
    if other_owner(cache).is_some() {
        return Ok(());
    }
    let programs = Programs::current(cache);
    let all = recorded::list(&directory)?;
    // The kubelet stops first, since it would restart containers.
    for one in all.iter().filter(|one| one.name == "kubelet") {
        one.stop(Duration::ZERO).await?;
    }
    let containerd = Containerd::new(cache, &programs);
    containerd.restart_if_needed().await.context("cannot restart containerd to stop its containers")?;
    if containerd.ctr(&["version"]).await.is_ok() {
        containerd.remove_containers().await?;
    }
    recorded::stop_all(&directory).await?;
    containerd.stop_shims().await?;
    unmount_below(&[&directory, Path::new(STATE)]).await?;
    network::down(Path::new(STATE)).await?;
    cgroups::remove();
    hosts::remove()
}

async fn unmount_below(directories: &[&Path]) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for target in mount_targets(&mounts, directories) {
        run("umount", ["--lazy", &target]).await?;
    }
    Ok(())
}

/// The mount points below these directories, the last mounted first.
fn mount_targets(mounts: &str, directories: &[&Path]) -> Vec<String> {
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let below = |target: &&str| directories.iter().any(|directory| Path::new(target).starts_with(directory));
    let mut targets: Vec<String> = targets.filter(below).map(str::to_owned).collect();
    targets.reverse();
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_are_found_innermost_first() {
        let mounts =
            "tmpfs /run/a tmpfs rw 0 0\noverlay /run/a/b overlay rw 0 0\nproc /proc proc rw 0 0\ntmpfs /run/ab tmpfs rw 0 0\n";
        assert_eq!(mount_targets(mounts, &[Path::new("/run/a")]), ["/run/a/b", "/run/a"]);
    }
}
