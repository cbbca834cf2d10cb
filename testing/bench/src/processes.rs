//! CPU time and memory of processes, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

/// The ticks of `/proc/<pid>/stat` per second: USER_HZ, which is 100 on every supported architecture.
const TICKS: f64 = 100.0;

/// The name of the benchmark's own process.
pub const BENCH: &str = "load generator";

/// The processes that do no work for either side.
pub const UNCOUNTED: [&str; 2] = [BENCH, "kube-controller-manager"];

/// A process at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// CPU seconds so far, in user and kernel mode.
    pub cpu: f64,
    /// Resident memory, MiB.
    pub resident: f64,
    /// Peak resident memory, MiB; zero if unknown.
    pub peak: f64,
}

/// All processes that belong to this run, by name, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(pub BTreeMap<String, ProcessUsage>);

impl Snapshot {
    /// Reads the figures of this process and its descendants. PostgreSQL's server and
    /// its backends count as one process, including backends that have exited.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn take() -> std::io::Result<Self> {
        let own = std::process::id();
        let mut stats = BTreeMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process may exit while its files are read.
            let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().and_then(|text| Stat::parse(&text)) else {
                continue;
            };
            stats.insert(pid, stat);
        }
        let mut all = BTreeMap::<String, ProcessUsage>::new();
        for (pid, stat) in &stats {
            let Some(child) = child_of(&stats, *pid, own) else { continue };
            let name = if *pid == own { BENCH.to_owned() } else { name(child) };
            // The times of exited processes are in their parent's figures. Those of PostgreSQL count; those of the benchmark's
            // own helpers do not.
            let exited_children = if name == "postgres" { stat.exited_children } else { 0.0 };
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            // PostgreSQL's processes share most of their memory, which must count only once.
            let (resident, peak) = if name == "postgres" {
                (mebibytes(&read("smaps_rollup"), "Pss:"), 0.0)
            } else {
                let status = read("status");
                (mebibytes(&status, "VmRSS:"), mebibytes(&status, "VmHWM:"))
            };
            let usage = all.entry(name).or_default();
            usage.cpu += (stat.own + exited_children) / TICKS;
            usage.resident += resident;
            usage.peak += peak;
        }
        Ok(Snapshot(all))
    }

    /// CPU seconds of each process since an earlier moment.
    pub fn cpu_since(&self, before: &Snapshot) -> BTreeMap<String, f64> {
        let earlier = |name: &String| before.0.get(name).map_or(0.0, |usage| usage.cpu);
        self.0.iter().map(|(name, usage)| (name.clone(), (usage.cpu - earlier(name)).max(0.0))).collect()
    }

    /// Resident memory of a process now, and its peak, in MiB.
    pub fn memory(&self, name: &str) -> (f64, f64) {
        self.0.get(name).map_or((0.0, 0.0), |usage| (usage.resident, usage.peak))
    }
}

/// The fields of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// Ticks of the process itself.
    own: f64,
    /// Ticks of exited children for which the process has waited.
    exited_children: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may contain any characters.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
        // Indexes count from the third field, the state: 1 is the parent, 11 to 14 are the times.
        let (own, exited_children) = (ticks(11)? + ticks(12)?, ticks(13)? + ticks(14)?);
        Some(Stat { parent: fields.get(1)?.parse().ok()?, own, exited_children })
    }
}

/// The child of `own` that is `pid` or an ancestor of `pid`. For `own`, `own` itself; `None` for other processes.
fn child_of(stats: &BTreeMap<u32, Stat>, pid: u32, own: u32) -> Option<u32> {
    let mut child = pid;
    loop {
        let parent = stats.get(&child)?.parent;
        if child == own || parent == own {
            return Some(child);
        }
        child = parent;
    }
}

/// The name of a process's program, without the prefix `orders-`.
fn name(pid: u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let name = program.rsplit('/').next().unwrap_or_default();
    name.strip_prefix("orders-").unwrap_or(name).to_owned()
}

/// A field of a process's `/proc/<pid>/status`, converted from KiB to MiB; zero if the field is missing.
pub fn mebibytes(status: &str, field: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(parent: u32) -> Stat {
        Stat { parent, own: 0.0, exited_children: 0.0 }
    }

    #[test]
    fn stat_is_parsed_with_any_program_name() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 0 0 0 0 250 50 3 4 20 0 1 0 1 2 3";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 1, own: 300.0, exited_children: 7.0 }));
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn descendants_count_as_the_child_that_they_descend_from() {
        let stats = BTreeMap::from([(1, stat(0)), (5, stat(1)), (6, stat(5)), (7, stat(6)), (9, stat(1))]);
        assert_eq!(child_of(&stats, 7, 5), Some(6));
        assert_eq!(child_of(&stats, 6, 5), Some(6));
        assert_eq!(child_of(&stats, 5, 5), Some(5));
        assert_eq!(child_of(&stats, 9, 5), None);
    }

    #[test]
    fn cpu_time_is_the_increase_since_the_earlier_snapshot() {
        let at = |cpu| Snapshot(BTreeMap::from([("etcd".to_owned(), ProcessUsage { cpu, ..ProcessUsage::default() })]));
        assert_eq!(at(3.5).cpu_since(&at(1.0))["etcd"], 2.5);
        assert_eq!(at(3.5).cpu_since(&Snapshot::default())["etcd"], 3.5);
    }

    #[test]
    fn memory_is_in_mebibytes() {
        assert_eq!(mebibytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS:"), 1.0);
        assert_eq!(mebibytes("", "VmRSS:"), 0.0);
    }

    #[test]
    fn a_snapshot_contains_this_process() {
        let snapshot = Snapshot::take().unwrap();
        assert!(snapshot.memory(BENCH).0 > 0.0);
    }
}
