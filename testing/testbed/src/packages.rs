//! The Debian packages that the testbed needs. Missing packages are installed if that is possible;
//! otherwise an error names them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::command::run_within;

/// A required Debian package, and the files that show that it is installed.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// The package's name.
    pub name: &'static str,
    /// Files of the package. If any of them exists, the package is installed.
    pub marker_files: &'static [&'static str],
}

/// PostgreSQL's server.
pub const POSTGRES: Package = Package { name: "postgresql", marker_files: &["/usr/lib/postgresql"] };

/// A library that shifts the clock of a process.
pub const FAKETIME: Package = Package { name: "faketime", marker_files: &["/usr/bin/faketime"] };

/// A pooler of connections to PostgreSQL.
pub const PGBOUNCER: Package = Package { name: "pgbouncer", marker_files: &["/usr/sbin/pgbouncer"] };

/// The packages that a node needs, besides the programs that are built from Go modules.
pub const NODE: &[Package] = &[
    Package { name: "runc", marker_files: &["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"] },
    Package { name: "containernetworking-plugins", marker_files: &["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"] },
    Package { name: "nftables", marker_files: &["/usr/sbin/nft", "/sbin/nft"] },
    Package { name: "iproute2", marker_files: &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"] },
    Package { name: "buildah", marker_files: &["/usr/bin/buildah"] },
];

/// The packages that are needed to build images.
pub const IMAGES: &[Package] = &[
    Package { name: "buildah", marker_files: &["/usr/bin/buildah"] },
    Package { name: "mmdebstrap", marker_files: &["/usr/bin/mmdebstrap"] },
];

/// Installs missing packages.
///
/// # Errors
/// If some are missing and this is not root on Debian, or apt-get fails.
pub async fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().filter(|package| !package.is_installed()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let may_install = rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists();
    if !may_install {
        bail!(
            "these Debian packages, or your system's equivalents, are missing: {list}\nInstall them (`sudo apt-get install {list}`), or run this as root on Debian"
        );
    }
    println!("installing {list}");
    apt_get(&["update"]).await?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt_get(&install).await
}

impl Package {
    fn is_installed(&self) -> bool {
        self.marker_files.iter().any(|file| Path::new(file).exists())
    }
}

async fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    run_within(Duration::from_secs(15 * 60), &mut command).await.map(drop)
}
