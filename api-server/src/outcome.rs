//! Waits for the outcomes of orders. All requests share one watch of all orders.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, reflector, watcher},
};
use orders_crds::{Order, Outcome};
use tokio::{sync::watch, time::Instant};

use crate::listing::{Cursor, Filter, Index};

/// After this time without an event, a waiter reads the order itself: a watch can go silent.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The time limit of such a read.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// The known state of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The order was not seen yet, or is not decided.
    Undecided,
    /// The order is decided.
    Decided {
        /// The outcome, which is known: neither [`Outcome::Undecided`] nor [`Outcome::Unknown`].
        outcome: Outcome,
        /// Whether the message was sent, or can never be sent.
        message_done: bool,
        /// The number of the attempt to charge that was decided.
        attempt: i32,
        /// How often the message was sent again on request.
        resends: i32,
    },
    /// The resource was deleted.
    Deleted,
}

impl State {
    /// Returns the state in an order's status.
    pub fn of(order: &Order) -> Self {
        match &order.status {
            Some(status) if !matches!(status.outcome(), Outcome::Undecided | Outcome::Unknown) => State::Decided {
                outcome: status.outcome(),
                message_done: status.is_notification_final(),
                attempt: status.attempt(),
                resends: status.resends.unwrap_or(0),
            },
            _ => State::Undecided,
        }
    }
}

/// The orders as the watch last showed them, and the subscriptions by order.
#[derive(Clone)]
pub struct Outcomes {
    api: Api<Order>,
    namespace: String,
    store: reflector::Store<Order>,
    index: Arc<RwLock<Index>>,
    waiters: Arc<Mutex<HashMap<String, watch::Sender<State>>>>,
}

impl Outcomes {
    /// Starts the watch. Whenever the watch breaks, it is restarted and then shows what changed in
    /// between.
    pub fn watch(api: Api<Order>, namespace: &str) -> Self {
        let (store, writer) = reflector::store();
        let outcomes =
            Outcomes { api: api.clone(), namespace: namespace.to_owned(), store, index: Arc::default(), waiters: Arc::default() };
        let told = outcomes.clone();
        tokio::spawn(async move {
            let events = watcher(api, watcher::Config::default())
                .default_backoff()
                .modify(|order| order.managed_fields_mut().clear())
                .reflect(writer);
            let mut events = std::pin::pin!(events);
            // The index of a new list. It replaces the current index once the list is complete.
            let mut listed = Index::default();
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Init) => listed = Index::default(),
                    Ok(watcher::Event::InitApply(order)) => {
                        listed.insert(&order);
                        told.tell(&order.name_any(), State::of(&order));
                    }
                    Ok(watcher::Event::InitDone) => *told.write_index() = std::mem::take(&mut listed),
                    Ok(watcher::Event::Apply(order)) => {
                        told.write_index().insert(&order);
                        told.tell(&order.name_any(), State::of(&order));
                    }
                    Ok(watcher::Event::Delete(order)) => {
                        told.write_index().remove(&order.name_any());
                        told.tell(&order.name_any(), State::Deleted);
                    }
                    Err(error) => tracing::warn!(%error, "the watch of orders broke; making it anew"),
                }
            }
            tracing::error!("the watch of orders ended");
        });
        outcomes
    }

    /// Checks that the watch has shown all orders once.
    ///
    /// # Errors
    /// A description, if it has not.
    pub async fn ready(&self) -> Result<(), String> {
        match tokio::time::timeout(Duration::from_millis(500), self.store.wait_until_ready()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err("the orders have not been listed yet; is the API server reachable and the CRD installed?".to_owned()),
        }
    }

    /// The number of live orders.
    pub fn live(&self) -> usize {
        self.store.len()
    }

    /// Returns the order with this name, if the watch has shown it.
    pub fn seen(&self, name: &str) -> Option<Arc<Order>> {
        self.store.get(&reflector::ObjectRef::new(name).within(&self.namespace))
    }

    /// Returns up to `limit` live orders that pass the filter, after this cursor, newest first.
    pub fn page(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Vec<Arc<Order>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let orders = index.after(after, filter).filter_map(|name| self.seen(name));
        // The index may lag behind the store by one change.
        orders.filter(|order| filter.passes(order)).take(limit).collect()
    }

    /// Whether the order at this cursor is live.
    pub fn is_live(&self, place: &Cursor) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).has(place)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to the states of an order. Subscribe before the order is created, so that no
    /// outcome is missed.
    pub fn subscribe(&self, name: &str) -> Subscription {
        let mut waiters = self.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let sender = waiters.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(State::Undecided));
        Subscription { news: sender.subscribe(), name: name.to_owned(), outcomes: self.clone() }
    }

    fn tell(&self, name: &str, state: State) {
        let waiters = self.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(sender) = waiters.get(name) {
            sender.send_replace(state);
        }
    }

    async fn look(&self, name: &str) -> Option<State> {
        match tokio::time::timeout(LOOK_TIMEOUT, self.api.get_opt(name)).await {
            Ok(Ok(Some(order))) => Some(State::of(&order)),
            Ok(Ok(None)) => Some(State::Deleted),
            _ => None,
        }
    }
}

/// A subscription to the states of one order. It ends when it is dropped.
pub struct Subscription {
    news: watch::Receiver<State>,
    name: String,
    outcomes: Outcomes,
}

impl Subscription {
    /// Publishes a state that was not learned from the watch.
    pub fn learned(&self, state: State) {
        if state != State::Undecided {
            self.outcomes.tell(&self.name, state);
        }
    }

    /// Waits for the outcome until `deadline`. Once the outcome is known, waits up to `mail_wait`
    /// longer for the message, but never past the deadline.
    pub async fn wait(self, deadline: Instant, mail_wait: Duration) -> State {
        self.wait_for(|_| true, deadline, mail_wait).await
    }

    /// Like [`Self::wait`], but only a decided state for which `is_it` returns true ends the wait.
    pub async fn wait_for(mut self, is_it: impl Fn(State) -> bool, deadline: Instant, mail_wait: Duration) -> State {
        let mut decided_at = None;
        loop {
            let state = *self.news.borrow_and_update();
            let until = match state {
                State::Undecided => deadline,
                State::Deleted => return state,
                State::Decided { .. } if !is_it(state) => deadline,
                State::Decided { message_done: true, .. } => return state,
                State::Decided { .. } => deadline.min(*decided_at.get_or_insert_with(Instant::now) + mail_wait),
            };
            if Instant::now() >= until {
                return state;
            }
            let look_at = until.min(Instant::now() + LOOK_INTERVAL);
            if tokio::time::timeout_at(look_at, self.news.changed()).await.is_err()
                && let Some(state) = self.outcomes.look(&self.name).await
            {
                self.learned(state);
            }
        }
    }
}

impl Subscription {
    /// Waits until the watch shows a change of the order, but no longer than `patience`: a watch
    /// can go silent.
    pub async fn changed(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.news.changed()).await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiters = self.outcomes.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The receiver of this subscription still counts.
        if waiters.get(&self.name).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiters.remove(&self.name);
        }
    }
}
