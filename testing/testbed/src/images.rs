//! Builds images with buildah from the repository's Dockerfile, and loads them into containerd as
//! archives, without a registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::buildah::{archive, bud, build, buildah, directory, export};
use crate::cache::Cache;
use crate::command::{SHORT_TIMEOUT, run, run_within};
use crate::containerd::Containerd;
use crate::gobuild::{self, Programs, Set, format_duration};
use crate::{node, packages};

/// The NATS image, which the chart's own server uses. It has the same program as the official image
/// and accepts arguments in the same way.
const NATS: &str = "localhost/orders-nats:testbed";
const BASE: &str = "localhost/orders-base:testbed";
const BINARIES: &str = "localhost/orders-binaries:testbed";

/// The Dockerfile's targets. `orders-<target>` is the name of both the image and its program.
pub const TARGETS: [&str; 8] = ["api-server", "operator", "billing", "notify", "archive", "audit", "smoke", "inbox"];

/// A program that the operator's image has, too.
const TOOL: &str = "orders-dead-letters";

/// Options for building images.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The checkout.
    pub repository: PathBuf,
    /// The Dockerfile's targets to build.
    pub targets: Vec<String>,
    /// The images' tag.
    pub tag: String,
    /// The Cargo profile of the programs.
    pub profile: String,
}

/// The name by which the chart references an image.
pub(crate) fn reference(target: &str, tag: &str) -> String {
    format!("localhost/orders-{target}:{tag}")
}

/// Builds the programs and their images, and loads the changed images into the node. Returns the
/// references of the changed images.
pub(crate) async fn load(cache: &Cache, options: &Options) -> Result<Vec<String>> {
    if !node::is_healthy(cache).await {
        bail!("the node does not run; start it with `testbed up node`");
    }
    packages::ensure(packages::IMAGES).await?;
    let _lock = cache.lock("images").await?;
    println!("[1/3] building the programs (cargo build --profile {})", options.profile);
    let programs = build_programs(options).await?;
    println!("[2/3] building the images");
    let base = build_base(cache).await?;
    let keys = compute_keys(options, &programs, &base)?;
    let containerd = Containerd::new(cache, &Programs::current(cache));
    let changed = find_changed(cache, &containerd, options, &keys).await?;
    if !changed.is_empty() {
        build_binaries(cache, &programs).await?;
    }
    for target in &changed {
        build_target(cache, options, target).await?;
    }
    println!("[3/3] loading {} of {} images; the others have not changed", changed.len(), options.targets.len());
    for target in &changed {
        let reference = reference(target, &options.tag);
        containerd.import(&archive(cache, target)).await?;
        record_loaded(cache, &reference, &keys[target])?;
        println!("      {reference}");
    }
    let mut loaded: Vec<String> = changed.iter().map(|target| reference(target, &options.tag)).collect();
    loaded.extend(load_nats(cache, &containerd).await?);
    Ok(loaded)
}

/// Loads the NATS image, unless the node already has the image of the built program. Returns the
/// reference of the image if it was loaded.
async fn load_nats(cache: &Cache, containerd: &Containerd) -> Result<Option<String>> {
    let program = gobuild::ensure(cache, Set::Node).await?.path("nats-server");
    let key = hex(&Sha256::digest(fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?));
    let present = containerd.images().await?;
    if present.iter().any(|image| image == NATS) && read_loaded(cache).get(NATS) == Some(&key) {
        return Ok(None);
    }
    let context = directory(cache).join("nats");
    fs::create_dir_all(&context)?;
    fs::copy(program, context.join("nats-server"))?;
    build(cache, NATS, &context, "FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT [\"/nats-server\"]\n").await?;
    export(cache, NATS, &archive(cache, "nats")).await?;
    containerd.import(&archive(cache, "nats")).await?;
    record_loaded(cache, NATS, &key)?;
    println!("      {NATS}");
    Ok(Some(NATS.to_owned()))
}

/// Builds the targets' programs and returns their paths, by name. It builds the whole workspace, as the Makefile does, so
/// that all crates have the same features and nothing is compiled twice.
async fn build_programs(options: &Options) -> Result<BTreeMap<String, PathBuf>> {
    let started = Instant::now();
    let mut child = Command::new("cargo")
        .args(["build", "--profile", &options.profile, "--locked", "--workspace", "--message-format=json-render-diagnostics"])
        .args(options.targets.iter().map(|target| format!("--bin=orders-{target}")))
        .arg(format!("--bin={TOOL}"))
        .current_dir(&options.repository)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run cargo; install Rust from https://rustup.rs")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let read = async {
        let mut programs = BTreeMap::new();
        while let Some(line) = lines.next_line().await? {
            programs.extend(executable(&line));
        }
        Ok::<_, anyhow::Error>((programs, child.wait().await?))
    };
    let limit = Duration::from_secs(45 * 60);
    let (programs, status) = tokio::time::timeout(limit, read).await.context("cargo build took more than 45 minutes")??;
    if !status.success() {
        bail!("cargo build failed; its messages are above");
    }
    println!("      done in {}", format_duration(started.elapsed()));
    Ok(programs)
}

/// The name and path of the program in a message of cargo.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

/// A hash of each image's inputs.
fn compute_keys(options: &Options, programs: &BTreeMap<String, PathBuf>, base: &str) -> Result<BTreeMap<String, String>> {
    let dockerfile = options.repository.join("Dockerfile");
    let dockerfile = fs::read(&dockerfile)
        .with_context(|| format!("cannot read {}; name the checkout with --repository", dockerfile.display()))?;
    let mut keys = BTreeMap::new();
    for target in &options.targets {
        let name = format!("orders-{target}");
        let Some(path) = programs.get(&name) else {
            bail!("the workspace has no program {name}; the images are those of the targets {}", options.targets.join(", "));
        };
        let program = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut digest = Sha256::new();
        for part in [&dockerfile, base.as_bytes(), &program] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        keys.insert(target.clone(), hex(&digest.finalize()));
    }
    Ok(keys)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn find_changed(
    cache: &Cache,
    containerd: &Containerd,
    options: &Options,
    keys: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let present = containerd.images().await?;
    let loaded = read_loaded(cache);
    let is_current = |target: &String| {
        let reference = reference(target, &options.tag);
        present.contains(&reference) && loaded.get(&reference) == Some(&keys[target])
    };
    Ok(options.targets.iter().filter(|target| !is_current(target)).cloned().collect())
}

/// The file with the references and keys of the loaded images. It is next to containerd's
/// content and is deleted together with it.
fn loaded_file(cache: &Cache) -> PathBuf {
    cache.path("containerd/loaded.json")
}

fn read_loaded(cache: &Cache) -> BTreeMap<String, String> {
    let text = fs::read(loaded_file(cache)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn record_loaded(cache: &Cache, reference: &str, key: &str) -> Result<()> {
    let mut all = read_loaded(cache);
    all.insert(reference.to_owned(), key.to_owned());
    fs::write(loaded_file(cache), serde_json::to_vec(&all)?).context("cannot record which images are loaded")
}

/// Builds the base image of the programs: their C library and the certificates
/// of public authorities. It has the same Debian release as this machine, so that programs built
/// here run in it. Returns its identity.
async fn build_base(cache: &Cache) -> Result<String> {
    let tar = archive(cache, "base-root");
    if !tar.exists() {
        println!("      {BASE}, from Debian packages");
        let sources =
            ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources"];
        let sources: Vec<&str> = sources.into_iter().filter(|file| fs::metadata(file).is_ok_and(|file| file.len() > 0)).collect();
        fs::create_dir_all(directory(cache))?;
        let unfinished = tar.with_extension("unfinished.tar");
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=extract", "--include=libc6,libgcc-s1,ca-certificates"]);
        // The packages are only unpacked. This command does what the installation of ca-certificates would do.
        command.arg("--customize-hook=mkdir -p \"$1/etc/ssl/certs\" && cat \"$1\"/usr/share/ca-certificates/mozilla/*.crt > \"$1/etc/ssl/certs/ca-certificates.crt\"");
        command.arg(codename()?).arg(&unfinished).args(sources);
        run_within(Duration::from_secs(10 * 60), &mut command).await?;
        fs::rename(unfinished, &tar)?;
    }
    let context = directory(cache).join("base");
    fs::create_dir_all(&context)?;
    let link = context.join("base.tar");
    if !link.exists() {
        fs::hard_link(&tar, &link)?;
    }
    build(cache, BASE, &context, "FROM scratch\nADD base.tar /\n").await?;
    Ok(buildah(cache, &["images", "--quiet", "--no-trunc", BASE]).await?.trim().to_owned())
}

fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.map(str::to_owned)
        .context("/etc/os-release names no VERSION_CODENAME; images can be built only on Debian and distributions like it; otherwise use CLUSTER=kind")
}

/// Builds the image from which the Dockerfile copies the programs, in place of the
/// stage that would compile them.
async fn build_binaries(cache: &Cache, programs: &BTreeMap<String, PathBuf>) -> Result<()> {
    let context = directory(cache).join("binaries");
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(context.join("bin"))?;
    for (name, path) in programs.iter().filter(|(name, _)| name.starts_with("orders-")) {
        let copy = context.join("bin").join(name);
        // With debug information, an image would be several times larger.
        run_within(SHORT_TIMEOUT, Command::new("strip").arg("--strip-debug").arg("-o").arg(&copy).arg(path)).await?;
    }
    build(cache, BINARIES, &context, "FROM scratch\nCOPY bin/ /usr/local/bin/\n").await
}

async fn build_target(cache: &Cache, options: &Options, target: &str) -> Result<()> {
    let reference = reference(target, &options.tag);
    let dockerfile = options.repository.join("Dockerfile");
    let dockerfile = dockerfile.to_str().context("the checkout's path is not UTF-8")?;
    let (binaries, base) = (format!("BINARIES={BINARIES}"), format!("RUNTIME_IMAGE={BASE}"));
    let repository = options.repository.to_string_lossy();
    let arguments = ["--build-arg", &binaries, "--build-arg", &base, "--target", target, "--file", dockerfile, &repository];
    bud(cache, &reference, &arguments).await?;
    export(cache, &reference, &archive(cache, target)).await
}

/// Restarts the workloads that use these images: a running pod does
/// not notice that a tag refers to another image.
pub(crate) async fn restart_workloads(kubeconfig: &Path, kubectl: &Path, references: &[String]) -> Result<()> {
    let config = format!("--kubeconfig={}", kubeconfig.display());
    let list = run(kubectl, [&config, "get", "deployments,statefulsets", "--all-namespaces", "--output=json"]).await?;
    for (namespace, kind, name) in workloads_using(&serde_json::from_str(&list)?, references) {
        run(kubectl, [&config, "rollout", "restart", "--namespace", &namespace, &kind, &name]).await?;
        println!("      restarted {kind} {namespace}/{name}");
    }
    Ok(())
}

/// Namespace, kind and name of the workloads with a container that uses one of the images.
fn workloads_using(list: &Value, references: &[String]) -> Vec<(String, String, String)> {
    let workloads = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let uses = |workload: &&Value| {
        let containers = workload["spec"]["template"]["spec"]["containers"].as_array();
        containers.is_some_and(|all| all.iter().any(|one| references.iter().any(|image| one["image"] == **image)))
    };
    let names = |workload: &Value| {
        let metadata = &workload["metadata"];
        let kind = workload["kind"].as_str()?.to_lowercase();
        Some((metadata["namespace"].as_str()?.to_owned(), kind, metadata["name"].as_str()?.to_owned()))
    };
    workloads.iter().filter(uses).filter_map(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn programs_are_found_in_messages_of_cargo() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"orders-billing"},"executable":"/t/orders-billing"}"#;
        assert_eq!(executable(message), Some(("orders-billing".into(), "/t/orders-billing".into())));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}"#), None);
    }

    #[test]
    fn the_workloads_that_use_an_image_are_found() {
        let workload = |kind: &str, name: &str, image: &str| json!({"kind": kind, "metadata": {"namespace": "shop", "name": name}, "spec": {"template": {"spec": {"containers": [{"image": image}]}}}});
        let list = json!({"items": [workload("Deployment", "a", "localhost/orders-billing:testbed"), workload("Deployment", "b", "other"), workload("StatefulSet", "c", NATS)]});
        let found = workloads_using(&list, &[reference("billing", "testbed"), NATS.to_owned()]);
        let found: Vec<_> = found.iter().map(|(namespace, kind, name)| [namespace, kind, name].map(String::as_str)).collect();
        assert_eq!(found, [["shop", "deployment", "a"], ["shop", "statefulset", "c"]]);
    }
}
