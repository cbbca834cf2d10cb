//! The switchboard: the proxies report each effect to it, and it returns the fault to inject.

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
    effect::{Channel, Effect, Part},
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

/// The state that all proxies share.
#[derive(Debug)]
pub struct Switchboard {
    state: Mutex<State>,
    held: AtomicUsize,
    misfires: AtomicUsize,
    watches: watch::Sender<Watches>,
}

#[derive(Debug)]
struct State {
    counts: HashMap<(Channel, String), u32>,
    armed: Vec<(Effect, Fault)>,
    storm: Option<Storm>,
    fired: usize,
    last: Instant,
    hold: Option<Channel>,
    stale_list: Option<Bytes>,
}

/// Random faults at one effect in `one_in`.
#[derive(Debug)]
struct Storm {
    random: fastrand::Rng,
    one_in: u32,
}

/// A guard for an effect in progress. While it exists, the components are not idle.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Switchboard);

impl Default for Switchboard {
    fn default() -> Self {
        let state = State {
            counts: HashMap::new(),
            armed: Vec::new(),
            storm: None,
            fired: 0,
            last: Instant::now(),
            hold: None,
            stale_list: None,
        };
        Switchboard {
            state: Mutex::new(state),
            held: AtomicUsize::new(0),
            misfires: AtomicUsize::new(0),
            watches: watch::Sender::new(Watches::Open),
        }
    }
}

impl Switchboard {
    /// Clears the recorded effects. From now on, injects these faults at these effects.
    pub fn begin(&self, armed: Vec<(Effect, Fault)>) {
        let mut state = self.state();
        state.counts.clear();
        state.fired = 0;
        state.storm = None;
        state.armed = armed;
        self.misfires.store(0, Ordering::SeqCst);
    }

    /// Records that a fault could not be injected.
    pub fn misfired(&self) {
        self.misfires.fetch_add(1, Ordering::SeqCst);
    }

    /// Clears the recorded effects. From now on, injects a random fault at one effect in `one_in`, until [`Self::calm`].
    pub fn storm(&self, seed: u64, one_in: u32) {
        self.begin(Vec::new());
        self.state().storm = Some(Storm { random: fastrand::Rng::with_seed(seed), one_in });
    }

    /// Stops the injection of faults.
    pub fn calm(&self) {
        let mut state = self.state();
        state.storm = None;
        state.armed.clear();
    }

    /// Records an effect that is about to take place. Returns the fault to inject, if any, and a guard for the effect.
    pub fn arrives(&self, channel: Channel, operation: &str, by: Part) -> (Option<Fault>, UnderWay<'_>) {
        self.held.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state();
        state.last = Instant::now();
        let occurrence = state.counts.entry((channel, operation.to_owned())).or_default();
        *occurrence += 1;
        let effect = Effect { channel, operation: operation.to_owned(), occurrence: *occurrence };
        let fault = match state.armed.iter().position(|(armed, _)| *armed == effect) {
            Some(place) => Some(state.armed.swap_remove(place).1),
            None => state.storm.as_mut().and_then(|storm| storm.fault(&effect)),
        };
        if let Some(fault) = fault {
            if std::env::var_os("FAULTS_VERBOSE").is_some() {
                eprintln!("{effect} by {by:?}: {fault}");
            }
            state.fired += 1;
        }
        (fault, UnderWay(self))
    }

    /// All effects since [`Self::begin`], each as often as it occurred.
    pub fn seen(&self) -> Vec<Effect> {
        let counts: BTreeMap<_, _> = self.state().counts.iter().map(|(key, count)| (key.clone(), *count)).collect();
        let each = |((channel, operation), count): ((Channel, String), u32)| {
            (1..=count).map(move |occurrence| Effect { channel, operation: operation.clone(), occurrence })
        };
        counts.into_iter().flat_map(each).collect()
    }

    /// The number of faults that were injected since [`Self::begin`].
    pub fn fired(&self) -> usize {
        self.state().fired.saturating_sub(self.misfires.load(Ordering::SeqCst))
    }

    /// Waits for the injection of a fault. Returns whether a fault was injected within `limit`.
    pub async fn fires(&self, limit: Duration) -> bool {
        wait_for("a fault to happen", limit, || async { (self.fired() > 0).then_some(()) }).await.is_ok()
    }

    /// Waits until no effect has occurred for `quiet` and no request is held back.
    ///
    /// # Errors
    /// If the components do not become idle within `limit`.
    pub async fn rest(&self, quiet: Duration, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.held.load(Ordering::SeqCst) == 0 && self.state().last.elapsed() >= quiet {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the parts went on writing for {limit:?} after everything was done")
    }

    /// Holds back requests over a channel in its proxy. `None` releases them.
    pub fn hold(&self, channel: Option<Channel>) {
        self.state().hold = channel;
    }

    /// Waits while a channel is held back.
    pub async fn pass(&self, channel: Channel) {
        while self.state().hold == Some(channel) {
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
    pub fn answer_next_list_with(&self, list: Bytes) {
        self.state().stale_list = Some(list);
    }

    /// Whether an operator has listed the orders since the response was replaced.
    pub fn has_listed(&self) -> bool {
        self.state().stale_list.is_none()
    }

    /// The replacement for the response to an operator's list, if any.
    pub fn stale_list(&self) -> Option<Bytes> {
        self.state().stale_list.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storm {
    fn fault(&mut self, effect: &Effect) -> Option<Fault> {
        if self.random.u32(0..self.one_in) != 0 {
            return None;
        }
        // Slow faults are less frequent; otherwise a storm would mostly wait.
        let all: Vec<Fault> = Fault::of(effect).collect();
        let chosen = all[self.random.usize(0..all.len())];
        if chosen.is_slow() && self.random.u32(0..4) != 0 { None } else { Some(chosen) }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().last = Instant::now();
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_effect_that_comes_late_is_waited_for_and_one_that_never_comes_is_not() {
        let board = Switchboard::default();
        let event = Effect { channel: Channel::OperatorToKube, operation: "POST events".to_owned(), occurrence: 1 };
        board.begin(vec![(event, Fault::Answer(429))]);
        assert!(!board.fires(Duration::from_millis(50)).await);
        let arrival = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            board.arrives(Channel::OperatorToKube, "POST events", Part::Operator(0)).0
        };
        let (fires, fault) = tokio::join!(board.fires(Duration::from_secs(60)), arrival);
        assert!(fires);
        assert_eq!(fault, Some(Fault::Answer(429)));
    }
}
