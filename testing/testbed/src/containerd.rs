//! containerd, which runs the node's containers and stores its images.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::cache::Cache;
use crate::command::{SHORT_TIMEOUT, run_within};
use crate::gobuild::Programs;
use crate::identity::Identity;
use crate::process::{Process, Signal};
use crate::wait::{WAIT_TIMEOUT, wait_for};

/// The directory for sockets and mounts. It is not in the cache, since the path of a Unix
/// socket may have at most 107 characters.
pub(crate) const STATE: &str = "/run/orders-testbed";

pub(crate) struct Containerd {
    programs: Programs,
    /// The content store. It outlives the node, so each image is loaded only once.
    root: PathBuf,
    directory: PathBuf,
}

impl Containerd {
    pub fn new(cache: &Cache, programs: &Programs) -> Self {
        Self { programs: programs.clone(), root: cache.path("containerd"), directory: cache.run("node") }
    }

    pub fn socket() -> PathBuf {
        Path::new(STATE).join("containerd.sock")
    }

    /// Starts containerd, records it with the node, and waits until it responds.
    pub async fn start(&self, pause_image: &str, network_plugins: &Path, runc: &Path) -> Result<()> {
        fs::create_dir_all(STATE)?;
        fs::create_dir_all(&self.directory)?;
        fs::create_dir_all(&self.root)?;
        let file = self.directory.join("containerd.toml");
        fs::write(&file, self.configuration(pause_image, network_plugins, runc))?;
        self.spawn(&file).await
    }

    /// Restarts containerd with its previous configuration, if its containers still have to be stopped.
    pub async fn restart_if_needed(&self) -> Result<()> {
        let file = self.directory.join("containerd.toml");
        if file.exists() && Path::new(STATE).join("containerd").exists() && self.ctr(&["version"]).await.is_err() {
            self.spawn(&file).await?;
        }
        Ok(())
    }

    async fn spawn(&self, configuration: &Path) -> Result<()> {
        // containerd finds its shim on the PATH.
        let directory = self.programs.path("containerd").parent().map(Path::to_owned).unwrap_or_default();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(directory).chain(std::env::split_paths(&inherited)))?;
        let process = Process::builder("containerd", self.programs.path("containerd"), &self.directory.join("log"))
            .arg("--config")
            .arg(configuration)
            .args(["--log-level", "warn"])
            .env("PATH", path)
            .recorded(&self.directory)
            .spawn()?;
        process.wait_until("containerd to respond", WAIT_TIMEOUT, || async { self.ctr(&["version"]).await.ok() }).await?;
        Ok(())
    }

    fn configuration(&self, pause_image: &str, network_plugins: &Path, runc: &Path) -> String {
        format!(
            r#"version = 3
root = '{root}'
state = '{STATE}/containerd'

[grpc]
  address = '{socket}'

[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE, as on many CI machines, no process may lower its OOM
  # score below that of its parent, and no pod could start.
  restrict_oom_score_adj = true
  # The node finds and removes them there.
  netns_mounts_under_state_dir = true

  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{runc}'
      SystemdCgroup = false

  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{plugins}']
    conf_dir = '{directory}/cni'

[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{snapshotter}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{pause_image}'

[plugins.'io.containerd.nri.v1.nri']
  disable = true
"#,
            root = self.root.display(),
            socket = Self::socket().display(),
            runc = runc.display(),
            plugins = network_plugins.display(),
            directory = self.directory.display(),
            snapshotter = snapshotter(&self.root),
        )
    }

    /// Runs `ctr` in the containerd namespace of Kubernetes.
    pub async fn ctr(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.path("ctr"));
        command.arg("--address").arg(Self::socket()).args(["--namespace", "k8s.io"]).args(args);
        run_within(SHORT_TIMEOUT * 3, &mut command).await
    }

    /// The names of the loaded images.
    pub async fn images(&self) -> Result<Vec<String>> {
        Ok(self.ctr(&["images", "ls", "--quiet"]).await?.lines().map(str::to_owned).collect())
    }

    /// Loads an archive in the OCI format. Its images replace images with the same names.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the cache's path is not UTF-8")?;
        self.ctr(&["images", "import", "--no-unpack", archive]).await.map(drop)
    }

    /// Kills and removes all containers, including those that have not fully started.
    pub async fn remove_containers(&self) -> Result<()> {
        for task in self.ctr(&["tasks", "ls", "--quiet"]).await?.lines() {
            // The task may have exited already.
            let _ = self.ctr(&["tasks", "delete", "--force", task]).await;
        }
        for container in self.ctr(&["containers", "ls", "--quiet"]).await?.lines() {
            self.ctr(&["containers", "delete", container]).await?;
        }
        Ok(())
    }
}

impl Containerd {
    /// Stops the shims. After a pod's containers are gone, one shim remains for it until
    /// the kubelet removes the pod's sandbox.
    pub async fn stop_shims(&self) -> Result<()> {
        let socket = Self::socket();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command_line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if is_shim(&command_line, &socket)
                && let Some(shim) = Identity::of(pid)
            {
                shim.signal(Signal::KILL)?;
                wait_for("a container's shim to exit", SHORT_TIMEOUT, || async { (!shim.is_alive()).then_some(()) }).await?;
            }
        }
        Ok(())
    }
}

/// Whether this is the command line of a shim that the containerd with this
/// socket started. There is no other record of the shims.
fn is_shim(command_line: &[u8], socket: &Path) -> bool {
    let mut words = command_line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let words: Vec<&[u8]> = words.collect();
    let socket = socket.as_os_str().as_encoded_bytes();
    program.ends_with(b"/containerd-shim-runc-v2") && words.windows(2).any(|pair| pair == [&b"-address"[..], socket])
}

/// The snapshotter: overlayfs, unless the cache itself is on overlayfs (as in a container).
fn snapshotter(root: &Path) -> &'static str {
    const OVERLAYFS: u64 = 0x794c_7630;
    match rustix::fs::statfs(root) {
        Ok(status) if status.f_type as u64 == OVERLAYFS => "native",
        _ => "overlayfs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_of_this_containerd_are_recognized() {
        let ours = b"/x/containerd-shim-runc-v2\0-namespace\0k8s.io\0-address\0/run/a.sock\0";
        assert!(is_shim(ours, Path::new("/run/a.sock")));
        assert!(!is_shim(ours, Path::new("/run/containerd/containerd.sock")));
        assert!(!is_shim(b"/bin/grep\0-address\0/run/a.sock\0", Path::new("/run/a.sock")));
    }
}
