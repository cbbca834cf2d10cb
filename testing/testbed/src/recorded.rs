//! Processes that outlive the program that started them. Files record their identity.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::identity::Identity;
use crate::process::Signal;

/// A process that was recorded in a directory.
#[derive(Clone, Debug)]
pub(crate) struct RecordedProcess {
    pub name: String,
    pub identity: Identity,
    file: PathBuf,
}

/// The recorded processes of a directory, latest start first.
pub(crate) fn list(directory: &Path) -> Result<Vec<RecordedProcess>> {
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return Ok(all) };
    for file in entries.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "pid") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(identity) = Identity::load(&file)? {
                all.push(RecordedProcess { name, identity, file });
            }
        }
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.identity.start_time));
    Ok(all)
}

/// Whether processes are recorded in the directory and all of them run.
pub(crate) fn all_alive(directory: &Path) -> bool {
    list(directory).is_ok_and(|all| !all.is_empty() && all.iter().all(|one| one.identity.is_alive()))
}

impl RecordedProcess {
    /// Terminates the process, waits until it has exited, and deletes its record. If it has not
    /// exited after `timeout`, it is killed.
    pub async fn stop(&self, timeout: Duration) -> Result<()> {
        if !timeout.is_zero() {
            self.identity.signal(Signal::TERM)?;
            self.identity.signal(Signal::CONT)?;
            self.wait_for_exit(timeout).await;
        }
        self.identity.signal(Signal::KILL)?;
        if !self.wait_for_exit(Duration::from_secs(10)).await {
            bail!("{} (pid {}) does not exit", self.name, self.identity.pid);
        }
        let _ = fs::remove_file(&self.file);
        Ok(())
    }

    async fn wait_for_exit(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.identity.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

/// Kills all recorded processes of a directory immediately. Their state is not kept.
pub(crate) async fn stop_all(directory: &Path) -> Result<usize> {
    let all = list(directory)?;
    let alive = all.iter().filter(|one| one.identity.is_alive()).count();
    for one in &all {
        one.stop(Duration::ZERO).await?;
    }
    Ok(alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[tokio::test]
    async fn a_recorded_process_outlives_its_handle_and_is_stopped_by_its_record() {
        let directory = tempfile::tempdir().unwrap();
        let process =
            Process::builder("sleeper", "/bin/sleep", directory.path()).arg("60").recorded(directory.path()).spawn().unwrap();
        drop(process);
        assert!(all_alive(directory.path()));
        assert_eq!(stop_all(directory.path()).await.unwrap(), 1);
        assert!(list(directory.path()).unwrap().is_empty());
    }
}
