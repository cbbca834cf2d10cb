//! A cache of the live orders, which one watch keeps current, and subscriptions to the states of
//! orders. All requests share it.

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
use orders_service::kubernetes::WATCH_SECONDS;
use tokio::{sync::watch, time::Instant};

use crate::listing::{Cursor, Filter, Index};

/// After this time without an event, a waiter reads the order itself: a watch can go silent.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The time limit of such a read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The known state of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// The watch has not shown the order yet, or the order is not decided.
    Undecided,
    /// The order is decided.
    Decided {
        /// The outcome, which is known: neither [`Outcome::Undecided`] nor [`Outcome::Unknown`].
        outcome: Outcome,
        /// Whether the message was sent, or can never be sent.
        is_message_done: bool,
        /// The number of the attempt to charge that was decided.
        attempt: i32,
        /// How often the message was sent again on request.
        resends: i32,
    },
    /// The resource was deleted.
    Deleted,
}

impl OrderState {
    /// Returns the state in an order's status.
    pub fn of(order: &Order) -> Self {
        let Some(status) = &order.status else { return OrderState::Undecided };
        match status.outcome() {
            Outcome::Undecided | Outcome::Unknown => OrderState::Undecided,
            outcome @ (Outcome::Paid | Outcome::Refused(_)) => OrderState::Decided {
                outcome,
                is_message_done: status.is_notification_final(),
                attempt: status.attempt(),
                resends: status.resends.unwrap_or(0),
            },
        }
    }
}

/// The orders as the watch last showed them, and the waiters for changes of each order.
#[derive(Clone)]
pub struct OrderCache {
    api: Api<Order>,
    namespace: String,
    store: reflector::Store<Order>,
    index: Arc<RwLock<Index>>,
    waiters: Arc<Mutex<HashMap<String, watch::Sender<OrderState>>>>,
}

impl OrderCache {
    /// Starts the watch that keeps the cache current. A watch that fails is restarted, and then
    /// shows the changes that it missed.
    pub fn start(api: Api<Order>, namespace: &str) -> Self {
        let (store, writer) = reflector::store();
        let cache = OrderCache {
            api: api.clone(),
            namespace: namespace.to_owned(),
            store,
            index: Arc::default(),
            waiters: Arc::default(),
        };
        let updated = cache.clone();
        tokio::spawn(async move {
            let events = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS))
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
                        updated.publish(&order.name_any(), OrderState::of(&order));
                    }
                    Ok(watcher::Event::InitDone) => *updated.write_index() = std::mem::take(&mut listed),
                    Ok(watcher::Event::Apply(order)) => {
                        updated.write_index().insert(&order);
                        updated.publish(&order.name_any(), OrderState::of(&order));
                    }
                    Ok(watcher::Event::Delete(order)) => {
                        updated.write_index().remove(&order.name_any());
                        updated.publish(&order.name_any(), OrderState::Deleted);
                    }
                    Err(error) => tracing::warn!(%error, "the watch of orders failed; restarting it"),
                }
            }
            tracing::error!("the watch of orders ended");
        });
        cache
    }

    /// Checks that the watch has shown all orders once.
    ///
    /// # Errors
    /// A description, if it has not.
    pub async fn check_ready(&self) -> Result<(), String> {
        match tokio::time::timeout(Duration::from_millis(500), self.store.wait_until_ready()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err("the orders have not been listed yet; is the Kubernetes API reachable and the CRD installed?".to_owned()),
        }
    }

    /// The number of live orders.
    pub fn live_count(&self) -> usize {
        self.store.len()
    }

    /// Returns the order with this name, if the watch has shown it.
    pub fn get(&self, name: &str) -> Option<Arc<Order>> {
        self.store.get(&reflector::ObjectRef::new(name).within(&self.namespace))
    }

    /// Returns up to `limit` live orders that pass the filter, after this cursor, newest first.
    pub fn page(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Vec<Arc<Order>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let orders = index.after(after, filter).filter_map(|name| self.get(name));
        // The index may lag behind the store by one change.
        orders.filter(|order| filter.passes(order)).take(limit).collect()
    }

    /// Whether the order at this cursor is live.
    pub fn is_live(&self, cursor: &Cursor) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).contains(cursor)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to the states of an order. Subscribe before the order is created, so that no
    /// outcome is missed.
    pub fn subscribe(&self, name: &str) -> Subscription {
        let mut waiters = self.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let sender = waiters.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(OrderState::Undecided));
        Subscription { states: sender.subscribe(), name: name.to_owned(), cache: self.clone() }
    }

    fn publish(&self, name: &str, state: OrderState) {
        let waiters = self.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(sender) = waiters.get(name) {
            sender.send_replace(state);
        }
    }

    /// Reads the current state of an order from the Kubernetes API. Returns `None` if the API does
    /// not respond.
    async fn read_state(&self, name: &str) -> Option<OrderState> {
        match tokio::time::timeout(READ_TIMEOUT, self.api.get_opt(name)).await {
            Ok(Ok(Some(order))) => Some(OrderState::of(&order)),
            Ok(Ok(None)) => Some(OrderState::Deleted),
            _ => None,
        }
    }
}

/// A subscription to the states of one order. It ends when it is dropped.
pub struct Subscription {
    states: watch::Receiver<OrderState>,
    name: String,
    cache: OrderCache,
}

impl Subscription {
    /// Publishes a state that was read in another way than by the watch.
    pub fn publish(&self, state: OrderState) {
        if state != OrderState::Undecided {
            self.cache.publish(&self.name, state);
        }
    }

    /// Waits for the outcome until `deadline`. Once the outcome is known, waits up to `mail_wait`
    /// longer for the message, but never past the deadline.
    pub async fn wait(self, deadline: Instant, mail_wait: Duration) -> OrderState {
        self.wait_for(|_| true, deadline, mail_wait).await
    }

    /// Like [`Self::wait`], but only a decided state for which `is_accepted` returns true ends the
    /// wait.
    pub async fn wait_for(
        mut self,
        is_accepted: impl Fn(OrderState) -> bool,
        deadline: Instant,
        mail_wait: Duration,
    ) -> OrderState {
        let mut decided_at = None;
        loop {
            let state = *self.states.borrow_and_update();
            let until = match state {
                OrderState::Undecided => deadline,
                OrderState::Deleted => return state,
                OrderState::Decided { .. } if !is_accepted(state) => deadline,
                OrderState::Decided { is_message_done: true, .. } => return state,
                OrderState::Decided { .. } => deadline.min(*decided_at.get_or_insert_with(Instant::now) + mail_wait),
            };
            if Instant::now() >= until {
                return state;
            }
            let poll_at = until.min(Instant::now() + POLL_INTERVAL);
            if tokio::time::timeout_at(poll_at, self.states.changed()).await.is_err()
                && let Some(state) = self.cache.read_state(&self.name).await
            {
                self.publish(state);
            }
        }
    }

    /// Like [`Self::wait`], but begins with a state that was read from the Kubernetes API, and reads each
    /// further state. The watch only shows when to read again, because it may be behind.
    pub async fn read_until_decided(mut self, mut state: OrderState, deadline: Instant, mail_wait: Duration) -> OrderState {
        let mut decided_at = None;
        loop {
            let until = match state {
                OrderState::Undecided => deadline,
                OrderState::Deleted | OrderState::Decided { is_message_done: true, .. } => return state,
                OrderState::Decided { .. } => deadline.min(*decided_at.get_or_insert_with(Instant::now) + mail_wait),
            };
            if Instant::now() >= until {
                return state;
            }
            let _ = tokio::time::timeout_at(until.min(Instant::now() + POLL_INTERVAL), self.states.changed()).await;
            self.states.mark_unchanged();
            state = match self.cache.read_state(&self.name).await {
                // A finished order was removed. Its outcome stays.
                Some(OrderState::Deleted) if state != OrderState::Undecided => return state,
                Some(read) => read,
                None => state,
            };
        }
    }

    /// Waits until the watch shows a change of the order, at most for `timeout`: a watch can go
    /// silent.
    pub async fn changed(&mut self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, self.states.changed()).await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiters = self.cache.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The receiver of this subscription still counts.
        if waiters.get(&self.name).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiters.remove(&self.name);
        }
    }
}
