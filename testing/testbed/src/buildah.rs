//! Builds images with buildah, and exports them as archives.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;

use crate::cache::Cache;
use crate::command::{SHORT_TIMEOUT, run_within};
use crate::gobuild::Programs;

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/orders-pause:testbed";

/// The directory of the images' archives.
pub(crate) fn directory(cache: &Cache) -> PathBuf {
    cache.path("images")
}

/// The archive of the image of this name.
pub(crate) fn archive(cache: &Cache, name: &str) -> PathBuf {
    directory(cache).join(format!("{name}.tar"))
}

/// Builds the archive of the pause image, if it does not exist.
pub(crate) async fn pause_archive(cache: &Cache, programs: &Programs) -> Result<PathBuf> {
    let file = archive(cache, "pause");
    if !file.exists() {
        let context = directory(cache).join("pause");
        fs::create_dir_all(&context)?;
        fs::copy(programs.path("pause"), context.join("pause"))?;
        build(cache, PAUSE, &context, "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n").await?;
        let unfinished = archive(cache, "pause.unfinished");
        export(cache, PAUSE, &unfinished).await?;
        fs::rename(unfinished, &file)?;
    }
    Ok(file)
}

/// Builds an image from a Containerfile and the files of a directory.
pub(crate) async fn build(cache: &Cache, reference: &str, context: &Path, containerfile: &str) -> Result<()> {
    let file = context.with_extension("Containerfile");
    fs::write(&file, containerfile)?;
    bud(cache, reference, &["--file", &file.to_string_lossy(), &context.to_string_lossy()]).await
}

/// Runs `buildah bud` with these arguments.
pub(crate) async fn bud(cache: &Cache, reference: &str, arguments: &[&str]) -> Result<()> {
    // The build creates no namespaces, since a CI machine may forbid that. It pulls nothing, since all base
    // images were built on this machine.
    let fixed = ["bud", "--quiet", "--isolation", "chroot", "--layers", "--pull-never", "--tag", reference];
    buildah(cache, &[&fixed, arguments].concat()).await.map(drop)
}

/// Writes an image to an archive.
pub(crate) async fn export(cache: &Cache, reference: &str, archive: &Path) -> Result<()> {
    let _ = fs::remove_file(archive);
    let target = format!("oci-archive:{}:{reference}", archive.display());
    buildah(cache, &["push", "--quiet", "--disable-compression", reference, &target]).await.map(drop)
}

/// Runs buildah on the testbed's own storage, and returns its output.
pub(crate) async fn buildah(cache: &Cache, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("buildah");
    command.arg("--root").arg(cache.path("buildah")).arg("--runroot").arg("/run/orders-buildah").args(arguments);
    run_within(SHORT_TIMEOUT * 10, &mut command).await
}
