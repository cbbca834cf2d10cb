//! Builds Kubernetes, the programs that a node needs, and NATS from their published Go modules.
//!
//! The builds need no container registry and download no binaries, only a Go toolchain and its
//! module proxy. The cache stores the programs under a hash of their sources, so that they are
//! built once for each machine and not once for each checkout.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::cache::Cache;
use crate::process::tail;

/// A Go module of this crate, and the programs that are built from it. Its
/// sources are embedded, so that a `testbed` binary needs no checkout.
struct Module {
    name: &'static str,
    title: &'static str,
    /// The duration of a first build on two cores.
    duration: &'static str,
    files: &'static [(&'static str, &'static str)],
    packages: &'static [&'static str],
    flags: &'static [&'static str],
    /// Links to the programs: the link's name, the program.
    links: &'static [(&'static str, &'static str)],
}

const KUBERNETES: Module = Module {
    name: "kubernetes",
    title: "Kubernetes 1.36: kube-apiserver, -controller-manager, -scheduler, -proxy, kubelet, kubectl",
    duration: "about 6 minutes",
    files: &[
        ("go.mod", include_str!("../go/kubernetes/go.mod")),
        ("go.sum", include_str!("../go/kubernetes/go.sum")),
        ("kubernetes/main.go", include_str!("../go/kubernetes/kubernetes/main.go")),
        ("kubectl/main.go", include_str!("../go/kubernetes/kubectl/main.go")),
    ],
    packages: &["./kubernetes", "./kubectl"],
    flags: &["-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3"],
    links: &[
        ("kube-apiserver", "kubernetes"),
        ("kube-controller-manager", "kubernetes"),
        ("kube-scheduler", "kubernetes"),
        ("kube-proxy", "kubernetes"),
        ("kubelet", "kubernetes"),
    ],
};

const ETCD: Module = Module {
    name: "etcd",
    title: "etcd 3.6",
    duration: "about 1 minute",
    files: &[
        ("go.mod", include_str!("../go/etcd/go.mod")),
        ("go.sum", include_str!("../go/etcd/go.sum")),
        ("main.go", include_str!("../go/etcd/main.go")),
    ],
    packages: &["."],
    flags: &["-ldflags=-s -w"],
    links: &[],
};

const NATS: Module = Module {
    name: "nats",
    title: "NATS 2.15",
    duration: "less than 1 minute",
    files: &[("go.mod", include_str!("../go/nats/go.mod")), ("go.sum", include_str!("../go/nats/go.sum"))],
    packages: &["tool"],
    flags: &["-ldflags=-s -w"],
    links: &[],
};

const NODE: Module = Module {
    name: "node",
    title: "containerd 2, CoreDNS, Helm 4",
    duration: "about 4 minutes",
    files: &[
        ("go.mod", include_str!("../go/node/go.mod")),
        ("go.sum", include_str!("../go/node/go.sum")),
        ("pause/main.go", include_str!("../go/node/pause/main.go")),
    ],
    packages: &["tool", "./pause"],
    flags: &["-tags=no_btrfs,no_zfs,no_devmapper,no_aufs", "-ldflags=-s -w"],
    links: &[],
};

/// A set of programs to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// etcd, the API server, the controller manager and kubectl; also NATS, for tests.
    ControlPlane,
    /// The programs of `ControlPlane`, those of a node, and helm.
    Node,
}

/// The directory of the built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// The programs of the last build. They may not exist.
    pub fn current(cache: &Cache) -> Self {
        Self { directory: cache.current_bin() }
    }

    /// The path of a program, for example `kubectl`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Builds the programs that are not in the cache, and prints its progress.
///
/// # Errors
/// If Go is missing or a build fails. The error contains the end of the build's output.
pub async fn ensure(cache: &Cache, set: Set) -> Result<Programs> {
    let modules: &[&Module] = match set {
        Set::ControlPlane => &[&KUBERNETES, &ETCD, &NATS],
        Set::Node => &[&KUBERNETES, &ETCD, &NATS, &NODE],
    };
    let programs = Programs::current(cache);
    if modules.iter().all(|module| is_current(cache, module)) {
        return Ok(programs);
    }
    let _lock = cache.lock("build").await?;
    for (index, module) in modules.iter().enumerate() {
        let directory = directory(cache, module);
        if !directory.is_dir() {
            println!("[{}/{}] building {} ({} the first time)", index + 1, modules.len(), module.title, module.duration);
            build(cache, module, &directory).await?;
        }
        link(cache, &directory)?;
    }
    Ok(programs)
}

fn directory(cache: &Cache, module: &Module) -> PathBuf {
    cache.path("bin").join(format!("{}-{}", module.name, hash(module)))
}

/// The hash of the inputs of a build: the module's files, its flags and the machine's architecture.
fn hash(module: &Module) -> String {
    let mut digest = Sha256::new();
    let texts = module.files.iter().flat_map(|(path, text)| [*path, *text]);
    let flags = module.packages.iter().chain(module.flags).copied();
    let links = module.links.iter().flat_map(|(link, program)| [*link, *program]);
    for part in texts.chain(flags).chain(links).chain([std::env::consts::ARCH]) {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn is_current(cache: &Cache, module: &Module) -> bool {
    let directory = directory(cache, module);
    let current = cache.current_bin();
    let Ok(entries) = fs::read_dir(&directory) else { return false };
    entries.flatten().all(|entry| fs::read_link(current.join(entry.file_name())).is_ok_and(|target| target == entry.path()))
}

async fn build(cache: &Cache, module: &Module, directory: &Path) -> Result<()> {
    check_go().await?;
    let sources = cache.path("src").join(format!("{}-{}", module.name, hash(module)));
    for (path, text) in module.files {
        let path = sources.join(path);
        fs::create_dir_all(path.parent().context("a source file without a directory")?)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The build uses a temporary directory name, so that a directory with the final name is complete.
    let unfinished = cache.path("bin").join(format!("{}.unfinished", module.name));
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    let log_path = cache.path("log").join(format!("build-{}.log", module.name));
    fs::create_dir_all(cache.path("log"))?;
    let log = fs::File::create(&log_path)?;
    let child = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(format!("{}/", unfinished.display()))
        .args(module.flags)
        .args(module.packages)
        .current_dir(&sources)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run go")?;
    let started = Instant::now();
    let status = wait_with_progress(child, started).await?;
    if !status.success() {
        bail!("building {} failed:\n{}\n(complete log: {})", module.title, tail(&log_path, 20), log_path.display());
    }
    for (link, program) in module.links {
        symlink(program, unfinished.join(link))?;
    }
    fs::rename(&unfinished, directory).with_context(|| format!("cannot move the programs to {}", directory.display()))?;
    println!("      done in {}", format_duration(started.elapsed()));
    Ok(())
}

/// Waits for a build, with a time limit. Prints a progress message every 30 seconds.
async fn wait_with_progress(mut child: tokio::process::Child, started: Instant) -> Result<std::process::ExitStatus> {
    const LIMIT: Duration = Duration::from_secs(45 * 60);
    loop {
        match tokio::time::timeout(Duration::from_secs(30), child.wait()).await {
            Ok(status) => return Ok(status?),
            Err(_) if started.elapsed() > LIMIT => {
                bail!("the build did not finish within {}", format_duration(started.elapsed()))
            }
            Err(_) => println!("      … {}", format_duration(started.elapsed())),
        }
    }
}

/// A duration in human-readable form.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

async fn check_go() -> Result<()> {
    let output = Command::new("go").arg("version").output().await;
    match output {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            match go_minor(&version) {
                Some(minor) if minor < 21 => {
                    bail!("{} is too old to build Kubernetes; install Go 1.26 from https://go.dev/dl", version.trim())
                }
                _ => Ok(()),
            }
        }
        _ => bail!(
            "Go is needed to build Kubernetes from its modules and `go` is not on the PATH; install Go 1.26 from https://go.dev/dl"
        ),
    }
}

/// The minor version in `go version go1.26.8 linux/amd64`. From 1.21 on, Go
/// downloads the toolchain that a module requires.
fn go_minor(version: &str) -> Option<u32> {
    let digits: String = version.split("go1.").nth(1)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Links `bin/current` to the programs. Each link is replaced atomically,
/// since another testbed or a test may be starting a program at the same time.
fn link(cache: &Cache, directory: &Path) -> Result<()> {
    let current = cache.current_bin();
    fs::create_dir_all(&current)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let temporary = current.join(format!(".{}", entry.file_name().to_string_lossy()));
        let _ = fs::remove_file(&temporary);
        symlink(entry.path(), &temporary)?;
        fs::rename(&temporary, current.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_parsed() {
        assert_eq!(go_minor("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(go_minor("go version go1.19 linux/arm64"), Some(19));
        assert_eq!(go_minor("go version devel"), None);
    }

    #[test]
    fn another_module_has_another_hash() {
        assert_ne!(hash(&ETCD), hash(&NODE));
        assert_eq!(hash(&ETCD).len(), 12);
    }

    #[test]
    fn durations_are_in_minutes_and_seconds() {
        assert_eq!(format_duration(Duration::from_secs(9)), "9 s");
        assert_eq!(format_duration(Duration::from_secs(381)), "6 min 21 s");
    }
}
