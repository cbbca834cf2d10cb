//! Runs many cases in parallel. The cases share a small number of shops.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    case::{Case, Learned, Verdict},
    effect::{Channel, Effect},
    report::Tally,
    shop::{Setup, Shop},
    workload::Workload,
};

/// The number of cases after which a shop is replaced, since its audit covers its complete history.
const CASES_PER_SHOP: usize = 60;

/// The time limit of a case.
const CASE_LIMIT: Duration = Duration::from_secs(900);

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
    /// The settings of the shops.
    pub setup: Setup,
    /// The selection of cases.
    pub selection: Selection,
    /// If set, only cases at effects over this channel.
    pub channel: Option<Channel>,
    /// The random seed for the order of the cases.
    pub seed: u64,
    /// The number of shops that run concurrently.
    pub jobs: usize,
    /// Whether to stop at the first violation.
    pub stop_at_first: bool,
}

/// Records the effects of a run without faults, and runs the selected cases.
///
/// # Errors
/// If no shop can be started. Violations are no errors: they are in the tally.
pub async fn run(plan: &Plan, tally: &mut Tally) -> Result<()> {
    let shop = Shop::open(&plan.setup).await?;
    let learned = Arc::new(Learned::from(&shop, plan.setup.workload).await?);
    let mut cases = learned.cases(plan.setup.kind);
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
        "{}{}: {} effects, {total} cases, seed {}, {} shops at once",
        plan.setup.kind,
        if plan.setup.workload == Workload::Removal { ", removal" } else { "" },
        learned.effects.len(),
        plan.seed,
        plan.jobs
    );
    let queue = Arc::new(Mutex::new(VecDeque::from(cases)));
    let (results, mut verdicts) = tokio::sync::mpsc::channel(16);
    let mut workers = tokio::task::JoinSet::new();
    let mut first = Some(shop);
    for worker in 0..plan.jobs {
        workers.spawn(work(worker, plan.setup.clone(), first.take(), queue.clone(), learned.clone(), results.clone()));
    }
    drop(results);
    let (started, mut told, tried_before) = (Instant::now(), Instant::now(), tally.tried());
    while let Some((case, verdict)) = verdicts.recv().await {
        tally.add(&case, &verdict, plan.seed);
        if plan.stop_at_first && matches!(verdict, Verdict::Violated(_)) {
            return Ok(());
        }
        if told.elapsed() > Duration::from_secs(20) {
            told = Instant::now();
            println!("  {} of {total} after {} s", tally.tried() - tried_before, started.elapsed().as_secs());
        }
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    ensure!(queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty(), "cases were left over");
    Ok(())
}

/// The first case of each fault in each group. All effects of the workload `Removal` form one group.
fn once_each<G: Ord>(cases: Vec<Case>, group: impl Fn(&Effect) -> G) -> Vec<Case> {
    let mut seen = BTreeSet::new();
    let group_of = |case: &Case| (case.workload == Workload::Life).then(|| group(&case.effect));
    cases.into_iter().filter(|case| seen.insert((group_of(case), case.fault))).collect()
}

async fn work(
    worker: usize,
    setup: Setup,
    mut shop: Option<Shop>,
    queue: Arc<Mutex<VecDeque<Case>>>,
    learned: Arc<Learned>,
    results: tokio::sync::mpsc::Sender<(Case, Verdict)>,
) -> Result<()> {
    let mut used = 0;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(case) = next else { return Ok(()) };
        if used >= CASES_PER_SHOP {
            shop = None;
        }
        let open = match shop.take() {
            Some(shop) => shop,
            None => {
                used = 0;
                Shop::open(&setup).await?
            }
        };
        let login = format!("case{worker}x{used}");
        let verdict = match tokio::time::timeout(CASE_LIMIT, case.run(&open, &learned, &login)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Unsettled(format!("the case did not end within {CASE_LIMIT:?}")),
        };
        used += 1;
        if verdict == Verdict::Holds {
            shop = Some(open);
        } else {
            // A failure in this shop could be attributed to the next case, so the shop is replaced.
            if setup.seeded_bug.is_none() {
                println!("{}", open.actors().logs().await);
            }
            if std::env::var_os("FAULTS_KEEP").is_some() {
                println!("  kept: {}", open.keep().display());
            }
        }
        if results.send((case, verdict)).await.is_err() {
            return Ok(());
        }
    }
}
