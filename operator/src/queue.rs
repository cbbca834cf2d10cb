//! What is worked on when: first come, first served, and each by one pass at a time.
//!
//! The semantics are those of client-go's workqueue, on which controllers in Go are
//! built. kube-runtime's `Controller` has them as well, but every request goes through
//! its timer queue, which counts in milliseconds and so costs each order 1.6 of them;
//! and beyond its concurrency it keeps what waits in a set, from which it takes one or
//! another, so that some are passed over for as long as others come (docs/performance.md).

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    hash::Hash,
    pin::pin,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use tokio_util::time::{DelayQueue, delay_queue};

/// The longest that anything is put off, whatever time somebody wrote into a status: the timers end after two years.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What waits, what is worked on, and what comes again later, by its key.
#[derive(Debug)]
struct Queue<K> {
    states: HashMap<K, State>,
    waiting: VecDeque<K>,
    later: DelayQueue<K>,
}

/// Where a key is; one that is in none of them is not known.
#[derive(Debug)]
enum State {
    Waiting,
    UnderWay,
    /// It changed since the pass over it began, so another follows.
    UnderWayAndChanged,
    Later(delay_queue::Key),
}

impl<K: Clone + Eq + Hash> Queue<K> {
    fn new() -> Self {
        Queue { states: HashMap::new(), waiting: VecDeque::new(), later: DelayQueue::new() }
    }

    /// It changed: there will be a pass that begins after this, as soon as possible.
    fn add(&mut self, key: K) {
        match self.states.get_mut(&key) {
            Some(State::Waiting | State::UnderWayAndChanged) => return,
            Some(state @ State::UnderWay) => {
                *state = State::UnderWayAndChanged;
                return;
            }
            Some(State::Later(timer)) => {
                self.later.remove(timer);
            }
            None => {}
        }
        self.wait(key);
    }

    /// The one that has waited longest, to be worked on until [`Self::done`].
    fn take(&mut self) -> Option<K> {
        let key = self.waiting.pop_front()?;
        self.states.insert(key.clone(), State::UnderWay);
        Some(key)
    }

    /// The pass over it has ended, and wants another after so long, or none.
    fn done(&mut self, key: K, again: Option<Duration>) {
        match (self.states.remove(&key), again) {
            (Some(State::UnderWayAndChanged), _) => self.wait(key),
            (_, Some(after)) => {
                let timer = self.later.insert(key.clone(), after.min(LONGEST));
                self.states.insert(key, State::Later(timer));
            }
            (_, None) => {}
        }
    }

    /// Waits until the time of one that comes again later has come, and adds it. Nothing is lost if it is dropped before.
    async fn due(&mut self) {
        match self.later.next().await {
            Some(expired) => self.wait(expired.into_inner()),
            None => pending().await,
        }
    }

    fn wait(&mut self, key: K) {
        self.states.insert(key.clone(), State::Waiting);
        self.waiting.push_back(key);
    }
}

/// Makes a pass over each key that `changes` brings, over so many at once, until `stop`; then ends
/// the passes under way and begins no other.
///
/// A pass says after how long it wants another. A key that changes during a pass gets another at its end.
pub async fn run<K: Clone + Eq + Hash, P: Future<Output = Option<Duration>>>(
    changes: impl Stream<Item = K>,
    pass: impl Fn(K) -> P,
    at_once: usize,
    stop: impl Future<Output = ()>,
) {
    let mut queue = Queue::<K>::new();
    let mut under_way = FuturesUnordered::new();
    let (mut changes, mut stop) = (pin!(changes.fuse()), pin!(stop));
    loop {
        while under_way.len() < at_once
            && let Some(key) = queue.take()
        {
            under_way.push(pass(key.clone()).map(|again| (key, again)));
        }
        tokio::select! {
            () = &mut stop => break,
            Some(key) = changes.next() => queue.add(key),
            Some((key, again)) = under_way.next() => queue.done(key, again),
            () = queue.due() => {}
        }
    }
    while under_way.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::stream;
    use proptest::prelude::*;
    use tokio::{sync::Semaphore, task::yield_now};

    use super::*;

    async fn until(condition: impl Fn() -> bool) {
        let turns = async {
            while !condition() {
                yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(180), turns).await.expect("it does not come to this")
    }

    #[tokio::test]
    async fn who_comes_first_is_served_first_however_many_come_later() {
        let served = RefCell::new(Vec::new());
        let pass = async |key: u32| {
            served.borrow_mut().push(key);
            yield_now().await;
            None
        };
        run(stream::iter(0..1000), pass, 4, until(|| served.borrow().len() == 1000)).await;
        assert_eq!(*served.borrow(), (0..1000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_wants_another_pass_gets_it() {
        let passes = RefCell::new(Vec::new());
        let pass = async |key: u32| {
            passes.borrow_mut().push(key);
            Some(if key == 1 { Duration::from_millis(2) } else { Duration::MAX })
        };
        run(stream::iter([1, 2]), pass, 4, until(|| passes.borrow().len() == 4)).await;
        assert_eq!(*passes.borrow(), [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn what_is_under_way_is_ended_at_the_end_and_nothing_else_begun() {
        let (begun, ended, gate) = (Cell::new(0), Cell::new(0), Semaphore::new(0));
        let pass = async |_: u32| {
            begun.set(begun.get() + 1);
            let _ = gate.acquire().await;
            ended.set(ended.get() + 1);
            None
        };
        let stop = async {
            until(|| begun.get() == 4).await;
            // Time enough for a fifth, if it were not to wait.
            for _ in 0..100 {
                yield_now().await;
            }
            gate.close();
        };
        run(stream::iter(0..100), pass, 4, stop).await;
        assert_eq!((begun.get(), ended.get()), (4, 4));
    }

    /// What happens to a queue.
    #[derive(Clone, Debug)]
    enum Step {
        Add(u8),
        Take,
        /// To one of those that are under way; after so many milliseconds it wants to be again.
        Done(prop::sample::Index, Option<u64>),
        Due,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6u8).prop_map(Step::Add),
            3 => Just(Step::Take),
            2 => (any::<prop::sample::Index>(), prop::option::of(0..3u64)).prop_map(|(which, again)| Step::Done(which, again)),
            1 => Just(Step::Due),
        ]
    }

    /// What the queue has to do, in the plainest way.
    #[derive(Debug, Default)]
    struct Model {
        waiting: Vec<u8>,
        under_way: Vec<u8>,
        changed: Vec<u8>,
        later: Vec<u8>,
    }

    impl Model {
        async fn step(&mut self, step: Step, queue: &mut Queue<u8>) -> Result<(), TestCaseError> {
            match step {
                Step::Add(key) => {
                    queue.add(key);
                    self.later.retain(|other| *other != key);
                    let list = if self.under_way.contains(&key) { &mut self.changed } else { &mut self.waiting };
                    if !list.contains(&key) {
                        list.push(key);
                    }
                }
                Step::Take => {
                    let expected = (!self.waiting.is_empty()).then(|| self.waiting.remove(0));
                    prop_assert_eq!(queue.take(), expected);
                    self.under_way.extend(expected);
                }
                Step::Done(which, again) if !self.under_way.is_empty() => {
                    let key = self.under_way.remove(which.index(self.under_way.len()));
                    queue.done(key, again.map(Duration::from_millis));
                    if let Some(place) = self.changed.iter().position(|other| *other == key) {
                        self.waiting.push(self.changed.remove(place));
                    } else if again.is_some() {
                        self.later.push(key);
                    }
                }
                Step::Due if !self.later.is_empty() => {
                    let due = tokio::time::timeout(Duration::from_secs(10), queue.due()).await;
                    prop_assert!(due.is_ok(), "it does not come again");
                    let came = queue.waiting.back().copied();
                    let place = self.later.iter().position(|other| Some(*other) == came);
                    prop_assert!(place.is_some(), "{:?} was not to come again", came);
                    self.waiting.extend(place.map(|place| self.later.remove(place)));
                }
                Step::Done(..) => {}
                Step::Due => prop_assert!(queue.due().now_or_never().is_none()),
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn none_is_lost_none_is_worked_on_twice_at_once_and_none_overtakes(steps in prop::collection::vec(step(), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (mut queue, mut model) = (Queue::new(), Model::default());
                for step in steps {
                    model.step(step, &mut queue).await?;
                }
                let known = model.waiting.len() + model.under_way.len() + model.later.len();
                prop_assert_eq!(Vec::from(queue.waiting), model.waiting);
                prop_assert_eq!((queue.states.len(), queue.later.len()), (known, model.later.len()));
                Ok(())
            })?;
        }
    }
}
