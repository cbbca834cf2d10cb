//! Waiting until the operator's own watch brings a change that the operator makes.
//!
//! Whoever waits for an order waits for the watch to bring its status. Events that are
//! written at once compete with that for the API server, so a pass waits for its own
//! watch first: when it has the status, the others have it as well.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::runtime::{reflector::ObjectRef, watcher};
use tokio::sync::oneshot;

use crate::guarded::Guarded;

/// How long a change is waited for: many times what it takes, and short enough to be no matter while the watch is away.
const PATIENCE: Duration = Duration::from_millis(100);

/// The orders that are waited for. One pass at a time is made over each, so there is one who waits.
#[derive(Debug, Default)]
pub struct Watched(Mutex<Waiting>);

type Waiting = HashMap<ObjectRef<Guarded>, oneshot::Sender<()>>;

impl Watched {
    /// Begins to wait for the next change of an order: to be called before the change is made.
    pub fn next_of(&self, order: &Guarded) -> NextChange<'_> {
        let (sender, came) = oneshot::channel();
        let order = ObjectRef::from(order);
        self.waiting().insert(order.clone(), sender);
        NextChange { watched: self, order, came }
    }

    /// Has whoever waits for the order of this event go on.
    pub fn saw(&self, event: &watcher::Event<Guarded>) {
        if let watcher::Event::Apply(order) | watcher::Event::InitApply(order) | watcher::Event::Delete(order) = event
            && let Some(waiting) = self.waiting().remove(&ObjectRef::from(order))
        {
            let _ = waiting.send(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next change of an order.
#[derive(Debug)]
pub struct NextChange<'a> {
    watched: &'a Watched,
    order: ObjectRef<Guarded>,
    came: oneshot::Receiver<()>,
}

impl NextChange<'_> {
    /// Waits until the watch has brought it, for a tenth of a second at most.
    pub async fn came(mut self) {
        let _ = tokio::time::timeout(PATIENCE, &mut self.came).await;
    }
}

impl Drop for NextChange<'_> {
    fn drop(&mut self) {
        self.watched.waiting().remove(&self.order);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use orders_crds::{Order, OrderSpec};

    use super::*;

    fn order(name: &str) -> Guarded {
        Guarded(Ok(Order::new(name, OrderSpec::default())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_waited_for_until_it_comes_but_not_for_long() {
        let watched = Watched::default();
        let next = watched.next_of(&order("a"));
        watched.saw(&watcher::Event::Apply(order("b")));
        watched.saw(&watcher::Event::InitDone);
        let mut came = Box::pin(next.came());
        assert!((&mut came).now_or_never().is_none());
        watched.saw(&watcher::Event::Apply(order("a")));
        assert!(came.now_or_never().is_some());

        let next = watched.next_of(&order("a"));
        watched.saw(&watcher::Event::Delete(order("a")));
        assert!(next.came().now_or_never().is_some(), "what came before anybody asked has come");

        let never = watched.next_of(&order("a")).came();
        assert!(tokio::time::timeout(2 * PATIENCE, never).await.is_ok());
        drop(watched.next_of(&order("a")));
        assert!(watched.waiting().is_empty(), "nobody waits any more");
    }
}
