//! Clusters that the testbed does not run itself: a kind cluster, and a cluster of the user.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::cache::Cache;
use crate::command::{SHORT_TIMEOUT, on_path, run_within};
use crate::images::{self, Options, TARGETS};

/// The cluster on which the commands operate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node that the testbed itself runs.
    Testbed,
    /// A cluster that kind runs in Docker: `CLUSTER=kind`.
    Kind,
    /// A context of the user's own kubeconfig: `KUBE_CONTEXT=…`.
    Context(String),
}

impl Target {
    /// Reads `KUBE_CONTEXT` and `CLUSTER`.
    ///
    /// # Errors
    /// If `CLUSTER` has an unknown value.
    pub fn from_environment() -> Result<Self> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::choose(read("KUBE_CONTEXT"), read("CLUSTER"))
    }

    fn choose(context: Option<String>, cluster: Option<String>) -> Result<Self> {
        match (context, cluster.as_deref()) {
            (Some(context), _) => Ok(Self::Context(context)),
            (None, None | Some("testbed")) => Ok(Self::Testbed),
            (None, Some("kind")) => Ok(Self::Kind),
            (None, Some(other)) => {
                bail!("CLUSTER={other} is unknown; it may be testbed (a node of its own, needs root) or kind (needs Docker)")
            }
        }
    }

    /// The directory with the state of this cluster.
    pub(crate) fn directory(&self, cache: &Cache) -> PathBuf {
        cache.run(match self {
            Self::Testbed => "node",
            Self::Kind => "kind",
            Self::Context(_) => "context",
        })
    }
}

const KIND_CLUSTER: &str = "orders";

/// Starts the kind cluster, unless it runs already.
pub(crate) async fn up_kind(cache: &Cache) -> Result<PathBuf> {
    require("kind", "https://kind.sigs.k8s.io")?;
    require("docker", "https://docs.docker.com/engine/install")?;
    require("kubectl", "https://kubernetes.io/docs/tasks/tools")?;
    let directory = Target::Kind.directory(cache);
    fs::create_dir_all(&directory)?;
    let kubeconfig = directory.join("kubeconfig");
    let clusters = run_within(SHORT_TIMEOUT, Command::new("kind").args(["get", "clusters"])).await?;
    let mut command = Command::new("kind");
    if clusters.lines().any(|name| name == KIND_CLUSTER) {
        command.args(["export", "kubeconfig"]);
    } else {
        println!("creating the kind cluster {KIND_CLUSTER} (a minute or two)");
        command.args(["create", "cluster", "--wait", "3m"]);
    }
    command.args(["--name", KIND_CLUSTER, "--kubeconfig"]).arg(&kubeconfig);
    run_within(Duration::from_secs(10 * 60), &mut command).await?;
    Ok(kubeconfig)
}

/// Deletes the kind cluster.
pub(crate) async fn down_kind() -> Result<()> {
    require("kind", "https://kind.sigs.k8s.io")?;
    run_within(SHORT_TIMEOUT * 5, Command::new("kind").args(["delete", "cluster", "--name", KIND_CLUSTER])).await.map(drop)
}

/// Builds the images with Docker and loads them into the kind cluster.
pub(crate) async fn load_kind(options: &Options) -> Result<()> {
    for (index, target) in options.targets.iter().enumerate() {
        let reference = images::reference(target, &options.tag);
        println!("[{}/{}] {reference}", index + 1, options.targets.len());
        let mut build = Command::new("docker");
        build.args(["build", "--quiet", "--target", target, "--tag", &reference]).arg(&options.repository);
        run_within(Duration::from_secs(60 * 60), &mut build).await?;
        let mut load = Command::new("kind");
        load.args(["load", "docker-image", "--name", KIND_CLUSTER, &reference]);
        run_within(SHORT_TIMEOUT * 5, &mut load).await?;
    }
    Ok(())
}

/// Writes a kubeconfig with only the user's context, and checks that the cluster responds.
pub(crate) async fn use_context(cache: &Cache, context: &str) -> Result<PathBuf> {
    require("kubectl", "https://kubernetes.io/docs/tasks/tools")?;
    let directory = Target::Context(String::new()).directory(cache);
    fs::create_dir_all(&directory)?;
    let mut view = Command::new("kubectl");
    view.args(["config", "view", "--raw", "--minify", "--flatten", "--context", context]);
    let text = run_within(SHORT_TIMEOUT, &mut view).await?;
    let kubeconfig = directory.join("kubeconfig");
    write_secret(&kubeconfig, &text)?;
    let mut check = Command::new("kubectl");
    check.arg("--kubeconfig").arg(&kubeconfig).args(["--request-timeout=15s", "get", "--raw", "/readyz"]);
    run_within(SHORT_TIMEOUT, &mut check).await.with_context(|| format!("the cluster of context {context} does not respond"))?;
    Ok(kubeconfig)
}

/// The instructions for a user whose cluster pulls its images from a registry.
pub(crate) fn image_instructions(tag: &str) -> String {
    let names: Vec<String> = TARGETS.iter().map(|target| format!("orders-{target}:{tag}")).collect();
    format!(
        "KUBE_CONTEXT is set: build the images with `docker build --target …` and push them to a registry of that cluster ({}); install the chart with --set image.registry=… --set image.tag=…",
        names.join(", ")
    )
}

fn write_secret(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, "")?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn require(program: &str, address: &str) -> Result<()> {
    if !on_path(program) {
        bail!("{program} is not on the PATH; install it ({address})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_takes_precedence_over_the_kind_of_cluster() {
        let choose =
            |context: Option<&str>, cluster: Option<&str>| Target::choose(context.map(str::to_owned), cluster.map(str::to_owned));
        assert_eq!(choose(None, None).unwrap(), Target::Testbed);
        assert_eq!(choose(None, Some("kind")).unwrap(), Target::Kind);
        assert_eq!(choose(Some("mine"), Some("kind")).unwrap(), Target::Context("mine".into()));
        assert!(choose(None, Some("minikube")).unwrap_err().to_string().contains("kind"));
    }
}
