//! The identity of a process. A pid alone does not identify it, since pids are reused; the pid with
//! the start time does.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

/// A process, identified even after the system reuses its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/<pid>/stat`.
    pub start_time: u64,
    /// The id of the boot from which the start time counts.
    pub boot: String,
}

impl Identity {
    /// Identifies a running process; `None` if there is no such process.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start_time) = read_stat(pid)?;
        (state != 'Z' && state != 'X').then(|| Self { pid, start_time, boot: boot() })
    }

    /// Whether this process still runs. A zombie does not run.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal, if the pid still belongs to this process.
    ///
    /// # Errors
    /// If the signal may not be sent.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match Pid::from_raw(self.pid) {
            Some(pid) if self.is_alive() => Ok(kill_process(pid, signal)?),
            _ => Ok(()),
        }
    }

    /// Whether all threads of the process are stopped (SIGSTOP).
    pub fn is_stopped(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return false };
        let stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        self.is_alive() && stats.filter_map(|stat| parse_stat(&stat)).all(|(state, _)| state == 'T')
    }

    /// Sends a signal to the process group that this process leads.
    ///
    /// # Errors
    /// If the signal may not be sent.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match Pid::from_raw(self.pid) {
            Some(pid) if self.is_alive() => Ok(kill_process_group(pid, signal)?),
            _ => Ok(()),
        }
    }

    /// Reads a recorded process; `None` if there is no record.
    ///
    /// # Errors
    /// If the record exists and cannot be read.
    pub fn load(file: &Path) -> Result<Option<Self>> {
        match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is not a record of a process; delete it", file.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Records the process.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn store(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec(self)?).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn read_stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time: fields 3 and 22 of proc(5)'s `stat`. The second field
/// is a name in parentheses that may itself contain spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_after_a_name_with_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(parse_stat(stat), Some(('S', 987_654)));
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { start_time: own.start_time + 1, ..own }.is_alive());
    }
}
