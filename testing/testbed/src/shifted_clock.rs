//! A clock that is wrong for one process.

use std::fs;

use anyhow::{Context, Result};

use crate::packages;

/// Returns the environment variables with which a process sees its machine's clock shifted by some
/// seconds. Durations stay as they are.
///
/// # Errors
/// If the library is missing and cannot be installed.
pub async fn shifted_clock(seconds: i64) -> Result<[(&'static str, String); 3]> {
    packages::ensure(&[packages::FAKETIME]).await?;
    let directories = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    let library = directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    let library = library.context("libfaketimeMT.so.1 is not below /usr/lib")?;
    Ok([
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ])
}
