//! Runs many cases in parallel. The cases share a small number of systems.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    case::{Baseline, Case, Verdict},
    effect::{Channel, Effect},
    report::Summary,
    system::{Setup, System},
    workload::Workload,
};

/// The number of cases after which a system is replaced, since its audit covers its complete history.
const CASES_PER_SYSTEM: usize = 60;

/// The time limit of a case.
const CASE_TIMEOUT: Duration = Duration::from_secs(900);

/// The selection of cases to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every fault at every effect.
    Full,
    /// Each fault once on each channel, at effects that the seed selects. With the workload `Removal`, which takes
    /// long, each fault only once in total.
    EachChannel,
    /// Each fault once on a channel to each server, at effects that the seed selects. With the workload
    /// `Removal`, each fault only once in total.
    EachServer,
    /// Every fault that is not slow, at every effect on these channels.
    On(&'static [Channel]),
}

/// The plan of a sweep.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The settings of the systems.
    pub setup: Setup,
    /// The selection of cases.
    pub selection: Selection,
    /// If set, only cases at effects over this channel.
    pub channel: Option<Channel>,
    /// The random seed for the order of the cases.
    pub seed: u64,
    /// The number of systems that run concurrently.
    pub jobs: usize,
    /// Whether to stop at the first violation.
    pub stop_at_first: bool,
}

/// Records the effects of a run without faults, and runs the selected cases.
///
/// # Errors
/// If no system can be started. Violations are no errors: they are in the summary.
pub async fn run(plan: &Plan, summary: &mut Summary) -> Result<()> {
    let system = System::start(&plan.setup).await?;
    let baseline = Arc::new(Baseline::record(&system, plan.setup.workload).await?);
    let mut cases = baseline.cases(plan.setup.kind);
    let mut random = fastrand::Rng::with_seed(plan.seed);
    random.shuffle(&mut cases);
    cases.retain(|case| plan.channel.is_none_or(|channel| channel == case.effect.channel));
    match plan.selection {
        Selection::Full => {}
        Selection::EachChannel => cases = once_each(cases, |effect| effect.channel),
        Selection::EachServer => cases = once_each(cases, |effect| effect.channel.server()),
        Selection::On(channels) => cases.retain(|case| channels.contains(&case.effect.channel) && !case.fault.is_slow()),
    }
    let total = cases.len();
    println!(
        "{}{}: {} effects, {total} cases, seed {}, {} systems in parallel",
        plan.setup.kind,
        if plan.setup.workload == Workload::Removal { ", removal" } else { "" },
        baseline.effects.len(),
        plan.seed,
        plan.jobs
    );
    let queue = Arc::new(Mutex::new(VecDeque::from(cases)));
    let (results, mut verdicts) = tokio::sync::mpsc::channel(16);
    let mut workers = tokio::task::JoinSet::new();
    let mut first = Some(system);
    for worker in 0..plan.jobs {
        workers.spawn(run_worker(worker, plan.setup.clone(), first.take(), queue.clone(), baseline.clone(), results.clone()));
    }
    drop(results);
    let (started, mut last_progress, tried_before) = (Instant::now(), Instant::now(), summary.tried());
    while let Some((case, verdict)) = verdicts.recv().await {
        summary.add(&case, &verdict, plan.seed);
        if plan.stop_at_first && matches!(verdict, Verdict::Violated(_)) {
            return Ok(());
        }
        if last_progress.elapsed() > Duration::from_secs(20) {
            last_progress = Instant::now();
            println!("  {} of {total} after {} s", summary.tried() - tried_before, started.elapsed().as_secs());
        }
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    ensure!(queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty(), "some cases did not run");
    Ok(())
}

/// The first case of each fault in each group. All effects of the workload `Removal` form one group.
fn once_each<G: Ord>(cases: Vec<Case>, group: impl Fn(&Effect) -> G) -> Vec<Case> {
    let mut seen = BTreeSet::new();
    let group_of = |case: &Case| (case.workload == Workload::Life).then(|| group(&case.effect));
    cases.into_iter().filter(|case| seen.insert((group_of(case), case.fault))).collect()
}

async fn run_worker(
    worker: usize,
    setup: Setup,
    mut idle_system: Option<System>,
    queue: Arc<Mutex<VecDeque<Case>>>,
    baseline: Arc<Baseline>,
    results: tokio::sync::mpsc::Sender<(Case, Verdict)>,
) -> Result<()> {
    let mut used = 0;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(case) = next else { return Ok(()) };
        if used >= CASES_PER_SYSTEM {
            idle_system = None;
        }
        let system = match idle_system.take() {
            Some(system) => system,
            None => {
                used = 0;
                System::start(&setup).await?
            }
        };
        let login = format!("case{worker}x{used}");
        let verdict = match tokio::time::timeout(CASE_TIMEOUT, case.run(&system, &baseline, &login)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Unsettled(format!("the case did not finish within {CASE_TIMEOUT:?}")),
        };
        used += 1;
        if verdict == Verdict::Holds {
            idle_system = Some(system);
        } else {
            // A failure in this system could be attributed to the next case, so the system is replaced.
            if setup.seeded_bug.is_none() {
                println!("{}", system.actors().logs().await);
            }
            if std::env::var_os("FAULTS_KEEP").is_some() {
                println!("  files: {}", system.keep().display());
            }
        }
        if results.send((case, verdict)).await.is_err() {
            return Ok(());
        }
    }
}
