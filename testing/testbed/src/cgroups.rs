//! The control groups in which the kubelet runs pods.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The kubelet's groups: one in the unified hierarchy, or one for each controller.
fn roots() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    let hierarchies = controllers.chain([base.to_owned()]);
    hierarchies.map(|path| path.join("kubepods")).filter(|path| path.is_dir()).collect()
}

/// Fails if pods of another kubelet run on this machine: a kubelet kills pods in these groups that
/// it does not know.
pub(crate) fn check_unused() -> Result<()> {
    if roots().iter().any(|root| has_processes(root)) {
        bail!(
            "another Kubernetes node runs on this machine (there are processes below /sys/fs/cgroup/…/kubepods); stop it, or use CLUSTER=kind"
        );
    }
    Ok(())
}

/// Removes the groups. Groups with processes remain.
pub(crate) fn remove() {
    for root in roots() {
        remove_empty(&root);
    }
}

fn has_processes(group: &Path) -> bool {
    let own = fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty());
    own || children(group).iter().any(|child| has_processes(child))
}

fn remove_empty(group: &Path) {
    for child in children(group) {
        remove_empty(&child);
    }
    let _ = fs::remove_dir(group);
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}
