//! The command line of `testbed`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::cache::Cache;
use crate::external::{self, Target};
use crate::forward::{self, Route};
use crate::gobuild::{self, Programs, Set};
use crate::images::{self, TARGETS};
use crate::{Cluster, control_plane, hosts, node, packages, recorded};

/// Starts a real Kubernetes on a machine without Docker, to try and test orders.
///
/// There are two clusters. `control-plane` consists of etcd, API server and controller manager: it
/// suffices for tests of controllers, and is ready in seconds. `node` also runs containers. The
/// programs are built once from Go modules, which takes about 11 minutes on two cores.
///
/// With CLUSTER=kind, kind runs the node in Docker. KUBE_CONTEXT=… selects a cluster of your own.
#[derive(Debug, Parser)]
#[command(version)]
#[command(
    after_help = "Files: $ORDERS_CACHE or ~/.cache/orders: programs in bin, images in containerd and buildah,\nwhat runs (kubeconfigs, logs, process ids) in run."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, unless it runs already
    Up {
        /// The cluster
        cluster: ClusterName,
    },
    /// Stop a cluster and delete its contents; programs and images are kept
    Down {
        /// The cluster [default: all]
        cluster: Option<ClusterName>,
    },
    /// Show the running clusters
    Status,
    /// Install missing packages and build the programs of a cluster (and NATS), without starting it
    Build {
        /// The cluster
        cluster: ClusterName,
    },
    /// Build the images of this checkout and load the changed images into the node
    Load(Load),
    /// Make a Service of the node reachable at a host name and a port of this machine
    Expose(Expose),
    /// Print exports of KUBECONFIG and PATH, for `eval "$(testbed env)"`
    Env,
    /// Forward connections to a Service (`expose` starts this command)
    #[command(hide = true)]
    Forward(Forward),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClusterName {
    /// etcd, API server and controller manager, for tests
    ControlPlane,
    /// A complete node, for the chart
    Node,
}

#[derive(Debug, Args)]
struct Load {
    /// The checkout [default: the one that contains the working directory]
    #[arg(long)]
    repository: Option<PathBuf>,
    /// Targets of the Dockerfile, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = TARGETS.map(str::to_owned))]
    only: Vec<String>,
    /// The tag of the images, localhost/orders-<target>:<tag>
    #[arg(long, default_value = "testbed")]
    tag: String,
    /// Cargo profile of the programs: `dev`, which tests also use, or `release`
    #[arg(long, env = "PROFILE", default_value = "dev")]
    profile: String,
    /// Do not restart Deployments that run an older image of the same name
    #[arg(long)]
    no_restart: bool,
}

#[derive(Debug, Args)]
struct Expose {
    /// The Service's namespace
    #[arg(long, default_value = "shop")]
    namespace: String,
    /// The Service's name
    #[arg(long, default_value = "orders-api-server")]
    service: String,
    /// The host name for this machine, which is written to /etc/hosts
    #[arg(long, default_value = "arch.homework")]
    host: String,
    /// The address and port to listen on
    #[arg(long, default_value = "127.0.0.1:80")]
    listen: SocketAddr,
    /// Seconds to wait for a response
    #[arg(long, default_value_t = 120)]
    wait: u64,
}

#[derive(Debug, Args)]
struct Forward {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    namespace: String,
    #[arg(long)]
    service: String,
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    with_kubectl: bool,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// If the command fails. The error states the cause and a remedy.
    pub async fn run(self) -> Result<()> {
        let cache = Cache::locate()?;
        match self.command {
            Command::Up { cluster: ClusterName::ControlPlane } => up_control_plane(&cache).await,
            Command::Up { cluster: ClusterName::Node } => up_node(&cache).await,
            Command::Down { cluster } => down(&cache, cluster).await,
            Command::Status => status(&cache).await,
            Command::Build { cluster } => build(&cache, cluster).await,
            Command::Load(load) => load.run(&cache).await,
            Command::Expose(expose) => expose.run(&cache).await,
            Command::Env => env(&cache).await,
            Command::Forward(forward) => forward.run().await,
        }
    }
}

/// Resolves when the user or the system asks this program to terminate.
async fn wait_for_interrupt() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => Ok(result?),
        _ = terminated.recv() => Ok(()),
    }
}

async fn up_control_plane(cache: &Cache) -> Result<()> {
    let started = Instant::now();
    tokio::select! {
        cluster = Cluster::control_plane() => {
            println!("control plane ready in {:.1?}: KUBECONFIG={}", started.elapsed(), cluster?.kubeconfig.display());
            Ok(())
        }
        signal = wait_for_interrupt() => {
            signal?;
            let directory = cache.run("control-plane");
            if !control_plane::was_ready(&directory) {
                recorded::stop_all(&directory).await?;
            }
            bail!("interrupted; everything that was started is stopped")
        }
    }
}

async fn up_node(cache: &Cache) -> Result<()> {
    match Target::from_environment()? {
        Target::Kind => {
            let kubeconfig = external::up_kind(cache).await?;
            println!("the kind cluster runs: KUBECONFIG={}", kubeconfig.display());
            return Ok(());
        }
        Target::Context(context) => {
            external::use_context(cache, &context).await?;
            println!("the cluster of context {context} responds");
            return Ok(());
        }
        Target::Testbed => {}
    }
    let _lock = cache.lock("node").await?;
    tokio::select! {
        result = node::up(cache) => result,
        signal = wait_for_interrupt() => {
            signal?;
            if !control_plane::was_ready(&node::directory(cache)) {
                println!("interrupted; stopping everything that was started");
                node::down(cache).await?;
            }
            bail!("interrupted; everything that was started is stopped")
        }
    }
}

async fn down(cache: &Cache, cluster: Option<ClusterName>) -> Result<()> {
    if cluster != Some(ClusterName::Node) {
        let _lock = cache.lock("control-plane").await?;
        let directory = cache.run("control-plane");
        let stopped = recorded::stop_all(&directory).await?;
        let _ = std::fs::remove_dir_all(&directory);
        println!("control plane: {}", if stopped > 0 { "stopped" } else { "did not run" });
    }
    if cluster == Some(ClusterName::ControlPlane) {
        return Ok(());
    }
    let target = Target::from_environment()?;
    if target != Target::Testbed {
        recorded::stop_all(&target.directory(cache)).await?;
        hosts::remove()?;
    }
    match &target {
        Target::Testbed => {
            let _lock = cache.lock("node").await?;
            let directory = node::directory(cache);
            if directory.exists() {
                node::down(cache).await?;
                println!("node: stopped");
            } else {
                println!("node: did not run");
            }
        }
        Target::Kind => {
            external::down_kind().await?;
            println!("kind cluster: deleted");
        }
        Target::Context(context) => {
            println!("the cluster of context {context} is not managed by the testbed; nothing was changed")
        }
    }
    if target != Target::Testbed {
        let _ = std::fs::remove_dir_all(target.directory(cache));
    }
    Ok(())
}

async fn status(cache: &Cache) -> Result<()> {
    let mut text = String::new();
    for name in ["control-plane", "node", "kind", "context"] {
        let directory = cache.run(name);
        let processes = recorded::list(&directory)?;
        let kubeconfig = control_plane::kubeconfig(&directory);
        if processes.is_empty() && !kubeconfig.exists() {
            continue;
        }
        let healthy = match name {
            "control-plane" => control_plane::is_healthy(&directory).await,
            "node" => node::is_healthy(cache).await,
            _ => kubeconfig.exists(),
        };
        let _ =
            writeln!(text, "{name}: {}, KUBECONFIG={}", if healthy { "healthy" } else { "NOT healthy" }, kubeconfig.display());
        for process in processes.iter().rev() {
            let state = if process.identity.is_alive() { "runs" } else { "has EXITED" };
            let _ = writeln!(text, "  {:24} pid {:<8} {state}", process.name, process.identity.pid);
        }
    }
    // The reader may close the pipe after the first lines.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

async fn build(cache: &Cache, cluster: ClusterName) -> Result<()> {
    match cluster {
        ClusterName::ControlPlane => gobuild::ensure(cache, Set::ControlPlane).await?,
        ClusterName::Node => {
            packages::ensure(packages::NODE).await?;
            packages::ensure(packages::IMAGES).await?;
            gobuild::ensure(cache, Set::Node).await?
        }
    };
    println!("all programs are in {}", cache.current_bin().display());
    Ok(())
}

impl Load {
    async fn run(self, cache: &Cache) -> Result<()> {
        let options = images::Options {
            repository: repository(self.repository)?,
            targets: self.only,
            tag: self.tag,
            profile: self.profile,
        };
        match Target::from_environment()? {
            Target::Kind => external::load_kind(&options).await,
            Target::Context(_) => {
                println!("{}", external::image_instructions(&options.tag));
                Ok(())
            }
            Target::Testbed => {
                let changed = tokio::select! {
                    changed = images::load(cache, &options) => changed?,
                    signal = wait_for_interrupt() => { signal?; bail!("interrupted") }
                };
                if self.no_restart || changed.is_empty() {
                    return Ok(());
                }
                let kubeconfig = control_plane::kubeconfig(&node::directory(cache));
                images::restart_workloads(&kubeconfig, &Programs::current(cache).path("kubectl"), &changed).await
            }
        }
    }
}

/// The given checkout, or else the first directory upwards with a Dockerfile and a workspace.
fn repository(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(given) = given {
        return given.canonicalize().with_context(|| format!("{} does not exist", given.display()));
    }
    let current = std::env::current_dir()?;
    let is_checkout = |directory: &&Path| directory.join("Dockerfile").is_file() && directory.join("Cargo.toml").is_file();
    let found = current.ancestors().find(is_checkout);
    found.map(Path::to_owned).context("the working directory is not in a checkout; name the checkout with --repository")
}

impl Expose {
    async fn run(self, cache: &Cache) -> Result<()> {
        let target = Target::from_environment()?;
        let directory = target.directory(cache);
        let kubeconfig = Cluster::node().await?.kubeconfig;
        hosts::add(&self.host)?;
        let route = Route { listen: self.listen, namespace: self.namespace, service: self.service, kubeconfig };
        forward::start(&route, &directory, target != Target::Testbed).await?;
        forward::wait_for_response(self.listen, Duration::from_secs(self.wait)).await?;
        let port = if self.listen.port() == 80 { String::new() } else { format!(":{}", self.listen.port()) };
        println!("http://{}{port} responds", self.host);
        Ok(())
    }
}

impl Forward {
    async fn run(self) -> Result<()> {
        let route = Route { listen: self.listen, namespace: self.namespace, service: self.service, kubeconfig: self.kubeconfig };
        if self.with_kubectl { forward::serve_with_kubectl(route).await } else { forward::serve(route).await }
    }
}

async fn env(cache: &Cache) -> Result<()> {
    let target = Target::from_environment()?;
    let running = match target {
        Target::Testbed if node::is_healthy(cache).await => Some(node::directory(cache)),
        Target::Testbed => {
            let directory = cache.run("control-plane");
            control_plane::is_healthy(&directory).await.then_some(directory)
        }
        _ => Some(target.directory(cache)).filter(|directory| control_plane::kubeconfig(directory).exists()),
    };
    let Some(directory) = running else {
        bail!("no cluster runs; start one with `testbed up node` or `testbed up control-plane`");
    };
    println!("export KUBECONFIG={}", quote_for_shell(&control_plane::kubeconfig(&directory)));
    println!("export PATH={}:\"$PATH\"", quote_for_shell(&cache.current_bin()));
    Ok(())
}

/// Quotes a path as one word of a shell command.
fn quote_for_shell(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn paths_are_quoted_as_one_shell_word() {
        assert_eq!(quote_for_shell(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
