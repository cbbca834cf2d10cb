//! Waits until the operator's watch has the operator's own write.
//!
//! A client that waits for an order waits until a watch has its status. If the operator created
//! Events immediately, they would compete with the watches for the API server. Therefore a pass
//! first waits for its own watch: when that has the status, the other watches have it as well.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::runtime::{reflector::ObjectRef, watcher};
use tokio::sync::oneshot;

use crate::kube::OrderGuard;

/// How long a pass waits for its write: many times longer than the watch needs, and short enough
/// not to matter while the watch is unavailable.
const TIMEOUT: Duration = Duration::from_millis(100);

/// The writes that passes wait for. Only one pass over an order runs at a time, so at most one pass
/// waits for each order.
#[derive(Debug, Default)]
pub struct WatchEcho(Mutex<Waiting>);

type Waiting = HashMap<ObjectRef<OrderGuard>, oneshot::Sender<()>>;

impl WatchEcho {
    /// Expects the next change of an order. Call this before the write.
    pub fn expect(&self, order: &OrderGuard) -> Echo<'_> {
        let (sender, receiver) = oneshot::channel();
        let order = ObjectRef::from(order);
        self.waiting().insert(order.clone(), sender);
        Echo { echoes: self, order, receiver }
    }

    /// Resolves the [`Echo`] of the order that this event is about.
    pub fn observe(&self, event: &watcher::Event<OrderGuard>) {
        if let watcher::Event::Apply(order) | watcher::Event::InitApply(order) | watcher::Event::Delete(order) = event
            && let Some(sender) = self.waiting().remove(&ObjectRef::from(order))
        {
            let _ = sender.send(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write that the watch does not have yet.
#[derive(Debug)]
pub struct Echo<'a> {
    echoes: &'a WatchEcho,
    order: ObjectRef<OrderGuard>,
    receiver: oneshot::Receiver<()>,
}

impl Echo<'_> {
    /// Waits until the watch has the change, at most 100 ms.
    pub async fn wait(mut self) {
        let _ = tokio::time::timeout(TIMEOUT, &mut self.receiver).await;
    }
}

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        self.echoes.waiting().remove(&self.order);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use orders_crds::{Order, OrderSpec};

    use super::*;

    fn order(name: &str) -> OrderGuard {
        OrderGuard(Ok(Order::new(name, OrderSpec::default())))
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_write_ends_with_the_watch_event_or_the_timeout() {
        let echoes = WatchEcho::default();
        let echo = echoes.expect(&order("a"));
        echoes.observe(&watcher::Event::Apply(order("b")));
        echoes.observe(&watcher::Event::InitDone);
        let mut wait = Box::pin(echo.wait());
        assert!((&mut wait).now_or_never().is_none());
        echoes.observe(&watcher::Event::Apply(order("a")));
        assert!(wait.now_or_never().is_some());

        let echo = echoes.expect(&order("a"));
        echoes.observe(&watcher::Event::Delete(order("a")));
        assert!(echo.wait().now_or_never().is_some(), "an event before the wait counts");

        let without_event = echoes.expect(&order("a")).wait();
        assert!(tokio::time::timeout(2 * TIMEOUT, without_event).await.is_ok());
        drop(echoes.expect(&order("a")));
        assert!(echoes.waiting().is_empty(), "a dropped echo does not wait");
    }
}
