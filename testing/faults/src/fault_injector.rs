//! The fault injector: the proxies report each effect to it, and it returns the fault to inject.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use orders_testbed::wait_for;
use tokio::sync::watch;

use crate::{
    effect::{Channel, Component, Effect},
    fault::Fault,
};

/// The behavior of the operator's watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watches {
    /// Watches deliver changes as they happen.
    Open,
    /// Watches deliver nothing until they are open again.
    Paused,
    /// Watches expire (410) once. The watcher must then list again.
    Expired,
}

/// The fault injector, which all proxies share.
#[derive(Debug)]
pub struct FaultInjector {
    state: Mutex<State>,
    effects_in_progress: AtomicUsize,
    failed_injections: AtomicUsize,
    watches: watch::Sender<Watches>,
}

#[derive(Debug)]
struct State {
    counts: HashMap<(Channel, String), u32>,
    planned: Vec<(Effect, Fault)>,
    random_faults: Option<RandomFaults>,
    injected: usize,
    last_effect: Instant,
    held_channel: Option<Channel>,
    next_list: Option<Bytes>,
}

/// Random faults at one effect in `one_in`.
#[derive(Debug)]
struct RandomFaults {
    random: fastrand::Rng,
    one_in: u32,
}

/// A guard for an effect in progress. While it exists, the components are not idle.
#[derive(Debug)]
pub struct EffectInProgress<'a>(&'a FaultInjector);

impl Default for FaultInjector {
    fn default() -> Self {
        let state = State {
            counts: HashMap::new(),
            planned: Vec::new(),
            random_faults: None,
            injected: 0,
            last_effect: Instant::now(),
            held_channel: None,
            next_list: None,
        };
        FaultInjector {
            state: Mutex::new(state),
            effects_in_progress: AtomicUsize::new(0),
            failed_injections: AtomicUsize::new(0),
            watches: watch::Sender::new(Watches::Open),
        }
    }
}

impl FaultInjector {
    /// Clears the recorded effects. From now on, injects these faults at these effects.
    pub fn begin(&self, planned: Vec<(Effect, Fault)>) {
        let mut state = self.state();
        state.counts.clear();
        state.injected = 0;
        state.random_faults = None;
        state.planned = planned;
        self.failed_injections.store(0, Ordering::SeqCst);
    }

    /// Records that a fault could not be injected.
    pub fn record_failed_injection(&self) {
        self.failed_injections.fetch_add(1, Ordering::SeqCst);
    }

    /// Clears the recorded effects. From now on, injects a random fault at one effect in `one_in`, until [`Self::stop_faults`].
    pub fn inject_at_random(&self, seed: u64, one_in: u32) {
        self.begin(Vec::new());
        self.state().random_faults = Some(RandomFaults { random: fastrand::Rng::with_seed(seed), one_in });
    }

    /// Stops the injection of faults.
    pub fn stop_faults(&self) {
        let mut state = self.state();
        state.random_faults = None;
        state.planned.clear();
    }

    /// Records an effect that is about to take place. Returns the fault to inject, if any, and a guard for the effect.
    pub fn intercept(&self, channel: Channel, operation: &str, component: Component) -> (Option<Fault>, EffectInProgress<'_>) {
        self.effects_in_progress.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state();
        state.last_effect = Instant::now();
        let occurrence = state.counts.entry((channel, operation.to_owned())).or_default();
        *occurrence += 1;
        let effect = Effect { channel, operation: operation.to_owned(), occurrence: *occurrence };
        let fault = match state.planned.iter().position(|(planned, _)| *planned == effect) {
            Some(index) => Some(state.planned.swap_remove(index).1),
            None => state.random_faults.as_mut().and_then(|random_faults| random_faults.choose(&effect)),
        };
        if let Some(fault) = fault {
            if std::env::var_os("FAULTS_VERBOSE").is_some() {
                eprintln!("{effect} by {component:?}: {fault}");
            }
            state.injected += 1;
        }
        (fault, EffectInProgress(self))
    }

    /// All effects since [`Self::begin`], each as often as it occurred.
    pub fn effects(&self) -> Vec<Effect> {
        let counts: BTreeMap<_, _> = self.state().counts.iter().map(|(key, count)| (key.clone(), *count)).collect();
        let each = |((channel, operation), count): ((Channel, String), u32)| {
            (1..=count).map(move |occurrence| Effect { channel, operation: operation.clone(), occurrence })
        };
        counts.into_iter().flat_map(each).collect()
    }

    /// The number of faults that were injected since [`Self::begin`].
    pub fn injected(&self) -> usize {
        self.state().injected.saturating_sub(self.failed_injections.load(Ordering::SeqCst))
    }

    /// Waits for the injection of a fault. Returns whether a fault was injected within `limit`.
    pub async fn wait_for_fault(&self, limit: Duration) -> bool {
        wait_for("the injection of a fault", limit, || async { (self.injected() > 0).then_some(()) }).await.is_ok()
    }

    /// Waits until no effect has occurred for `idle_period` and none is in progress.
    ///
    /// # Errors
    /// If the components do not become idle within `limit`.
    pub async fn wait_idle(&self, idle_period: Duration, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.effects_in_progress.load(Ordering::SeqCst) == 0 && self.state().last_effect.elapsed() >= idle_period {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the components still wrote {limit:?} after all orders settled")
    }

    /// Holds back requests over a channel in its proxy. `None` releases them.
    pub fn hold(&self, channel: Option<Channel>) {
        self.state().held_channel = channel;
    }

    /// Waits while a channel is held back.
    pub async fn wait_while_held(&self, channel: Channel) {
        while self.state().held_channel == Some(channel) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Changes the behavior of the operators' watches.
    pub fn set_watches(&self, watches: Watches) {
        self.watches.send_replace(watches);
    }

    /// Whether an operator currently watches the orders.
    pub fn is_watched(&self) -> bool {
        self.watches.receiver_count() > 0
    }

    /// A receiver for the behavior of the operators' watches.
    pub fn watches(&self) -> watch::Receiver<Watches> {
        self.watches.subscribe()
    }

    /// Replaces the response to an operator's next list of orders.
    pub fn replace_next_list(&self, list: Bytes) {
        self.state().next_list = Some(list);
    }

    /// Whether an operator has listed the orders since the response was replaced.
    pub fn has_listed(&self) -> bool {
        self.state().next_list.is_none()
    }

    /// The replacement for the response to an operator's list, if any.
    pub fn take_next_list(&self) -> Option<Bytes> {
        self.state().next_list.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RandomFaults {
    fn choose(&mut self, effect: &Effect) -> Option<Fault> {
        if self.random.u32(0..self.one_in) != 0 {
            return None;
        }
        // Slow faults are less frequent; otherwise a scenario with random faults would mostly wait.
        let all: Vec<Fault> = Fault::of(effect).collect();
        let chosen = all[self.random.usize(0..all.len())];
        if chosen.is_slow() && self.random.u32(0..4) != 0 { None } else { Some(chosen) }
    }
}

impl Drop for EffectInProgress<'_> {
    fn drop(&mut self) {
        self.0.state().last_effect = Instant::now();
        self.0.effects_in_progress.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wait_for_fault_waits_for_a_late_effect_until_the_limit() {
        let injector = FaultInjector::default();
        let event = Effect { channel: Channel::OperatorToKube, operation: "POST events".to_owned(), occurrence: 1 };
        injector.begin(vec![(event, Fault::Answer(429))]);
        assert!(!injector.wait_for_fault(Duration::from_millis(50)).await);
        let arrival = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            injector.intercept(Channel::OperatorToKube, "POST events", Component::Operator(0)).0
        };
        let (is_injected, fault) = tokio::join!(injector.wait_for_fault(Duration::from_secs(60)), arrival);
        assert!(is_injected);
        assert_eq!(fault, Some(Fault::Answer(429)));
    }
}
