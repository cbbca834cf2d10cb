//! Archives finished orders at once, and removes their resources from Kubernetes after their TTL.
//!
//! An order is removed only in the version that the archive has stored, so nothing that happened
//! to it is lost. No order is removed before it is archived: while the archive is unavailable,
//! orders stay.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::reflector::Store,
};
use orders_crds::Order;

use super::work::is_finished;
use crate::{
    kube::{CALL_TIMEOUT, OrderGuard},
    ports::http::archive::{Archive, BATCH, NotArchived},
};

/// How often the orders are checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the archive must have stored an order before its resource is removed. The HTTP API reads
/// the archive before it creates an order under a key, and may take this long until it has created
/// the order. The resource must still exist at that time.
const OVERLAP: Duration = Duration::from_secs(15);

/// The maximum number of removals at the same time. It is large enough that on a busy API server as
/// many orders are removed as are created.
const AT_ONCE: usize = 32;

/// The maximum number of orders removed in one check, so that new orders do not wait for the API
/// server.
const REMOVALS: usize = 500;

/// Archives and removes finished orders.
#[derive(Clone)]
pub struct Removal {
    archive: Archive,
    client: Client,
    ttl: Option<Duration>,
    /// Orders that other clients deleted and that are still to be archived.
    deleted: Arc<Mutex<Vec<Order>>>,
    /// UIDs of the orders that this operator is removing. The archive has stored them.
    removing: Arc<Mutex<HashSet<String>>>,
}

/// Which live orders the archive has stored, and which it has refused.
#[derive(Debug, Default)]
struct Archived {
    /// By UID: the version that is stored, and the time when it was stored.
    versions: HashMap<String, (String, Timestamp)>,
    /// By UID: the version that was refused.
    refused: HashMap<String, String>,
}

impl Removal {
    /// Archives orders in this archive, and removes each order `ttl` after it is finished, unless the
    /// order has its own TTL. `None` means never.
    pub fn new(archive: Archive, client: Client, ttl: Option<Duration>) -> Self {
        Removal { archive, client, ttl, deleted: Arc::default(), removing: Arc::default() }
    }

    /// Adds an order that is gone from Kubernetes to those that are archived next, if it was decided
    /// and this operator did not remove it.
    pub fn was_deleted(&self, order: &Order) {
        if self.removing().remove(&order.uid().unwrap_or_default()) {
            return;
        }
        if order.status.as_ref().is_some_and(|status| !status.is_charge_open()) {
            self.deleted.lock().unwrap_or_else(PoisonError::into_inner).push(order.clone());
        }
    }

    /// Archives and removes orders. Never returns.
    pub async fn run(&self, orders: Store<OrderGuard>) {
        let mut archived = Archived::default();
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(&orders, &mut archived).await;
        }
    }

    async fn look(&self, orders: &Store<OrderGuard>, archived: &mut Archived) {
        let (live, now) = (orders.state(), Timestamp::now());
        metrics::gauge!("orders_live").set(live.len() as f64);
        let finished: Vec<&Order> =
            live.iter().filter_map(|order| order.0.as_ref().ok()).filter(|order| is_finished(order, now)).collect();
        let uids: HashSet<&str> = finished.iter().filter_map(|order| order.metadata.uid.as_deref()).collect();
        archived.versions.retain(|uid, _| uids.contains(&**uid));
        archived.refused.retain(|uid, _| uids.contains(&**uid));

        let new: Vec<&Order> =
            finished.iter().copied().filter(|order| !archived.has(order) && !archived.refused(order)).collect();
        let gone = std::mem::take(&mut *self.deleted.lock().unwrap_or_else(PoisonError::into_inner));
        let mut backlog = new.len() + gone.len() + archived.refused.len();
        for batch in new.chunks(BATCH) {
            backlog -= self.put(batch, archived).await;
        }
        let gone_batch: Vec<&Order> = gone.iter().collect();
        for batch in gone_batch.chunks(BATCH) {
            let stored = self.put(batch, archived).await;
            backlog -= stored;
            if stored < batch.len() {
                let left = batch.iter().filter(|order| !archived.has(order) && !archived.refused(order));
                self.deleted.lock().unwrap_or_else(PoisonError::into_inner).extend(left.map(|order| (*order).clone()));
            }
        }
        metrics::gauge!("orders_archive_backlog").set(backlog as f64);

        // The calls to the archive may have taken long.
        let now = Timestamp::now();
        let time_of = |order: &Order| {
            let time = removal_time(order, self.ttl)?.max(archived.since(order)? + OVERLAP);
            (time <= now).then_some(time)
        };
        let mut due: Vec<_> = finished.iter().filter_map(|order| Some((time_of(order)?, *order))).collect();
        // The order that is due for the longest time is removed first.
        due.sort_unstable_by_key(|(time, _)| *time);
        let removals: Vec<_> = due.iter().take(REMOVALS).map(|(_, order)| self.remove(order)).collect();
        stream::iter(removals).buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    }

    /// Archives a batch, and returns how many of its orders the archive has stored. If the archive
    /// refuses the batch, each order is sent separately, so that a refused order does not prevent the
    /// others from being archived.
    async fn put(&self, batch: &[&Order], archived: &mut Archived) -> usize {
        match self.archive.put(batch).await {
            Ok(()) => {
                batch.iter().for_each(|order| archived.note(order));
                return batch.len();
            }
            Err(NotArchived::Unavailable(error)) => {
                tracing::warn!(orders = batch.len(), error, "not archived; trying again");
                #[cfg(debug_assertions)]
                if orders_service::seeded_bugs::is_on("removed-unarchived") {
                    batch.iter().for_each(|order| archived.pretend(order));
                }
                return 0;
            }
            Err(NotArchived::Refused(_)) => {}
        }
        let mut stored = 0;
        for order in batch {
            match self.archive.put(&[order]).await {
                Ok(()) => {
                    archived.note(order);
                    stored += 1;
                }
                Err(NotArchived::Unavailable(error)) => tracing::warn!(order = order.name_any(), error, "not archived"),
                Err(NotArchived::Refused(error)) => {
                    tracing::error!(order = order.name_any(), error, "the archive does not take this order: it stays");
                    archived.refuse(order);
                }
            }
        }
        stored
    }

    /// Removes the order if it still has the version that is archived. Only a request for a single
    /// order can have this precondition, and many such requests cost the API server no more than one
    /// request for many orders.
    async fn remove(&self, order: &Order) {
        let orders: Api<Order> = Api::namespaced(self.client.clone(), &order.namespace().unwrap_or_default());
        let uid = order.uid().unwrap_or_default();
        self.removing().insert(uid.clone());
        let same = Preconditions { uid: order.uid(), resource_version: order.resource_version() };
        let (name, params) = (order.name_any(), DeleteParams { preconditions: Some(same), ..DeleteParams::background() });
        match tokio::time::timeout(CALL_TIMEOUT, orders.delete(&name, &params)).await {
            Ok(Ok(_)) => return metrics::counter!("orders_removed_total").increment(1),
            // The order has another version by now, or is gone.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {}
            Ok(Err(error)) => tracing::warn!(order = name, %error, "not removed; trying again"),
            Err(_) => tracing::warn!(order = name, "not removed in time; trying again"),
        }
        self.removing().remove(&uid);
    }

    fn removing(&self) -> MutexGuard<'_, HashSet<String>> {
        self.removing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Archived {
    fn since(&self, order: &Order) -> Option<Timestamp> {
        let (uid, version) = version(order)?;
        self.versions.get(uid).filter(|(archived, _)| archived == version).map(|(_, since)| *since)
    }

    fn has(&self, order: &Order) -> bool {
        self.since(order).is_some()
    }

    fn refused(&self, order: &Order) -> bool {
        version(order).is_some_and(|(uid, version)| self.refused.get(uid).is_some_and(|refused| refused == version))
    }

    fn refuse(&mut self, order: &Order) {
        if let Some((uid, version)) = version(order) {
            self.refused.insert(uid.to_owned(), version.to_owned());
        }
    }

    /// Records the order as archived long ago.
    #[cfg(debug_assertions)]
    fn pretend(&mut self, order: &Order) {
        if let Some((uid, version)) = version(order) {
            self.versions.insert(uid.to_owned(), (version.to_owned(), Timestamp::UNIX_EPOCH));
        }
    }

    fn note(&mut self, order: &Order) {
        if let Some((uid, version)) = version(order) {
            self.versions.insert(uid.to_owned(), (version.to_owned(), Timestamp::now()));
        }
    }
}

/// The order's UID and resource version. Kubernetes assigns both to each resource.
fn version(order: &Order) -> Option<(&str, &str)> {
    order.metadata.uid.as_deref().zip(order.metadata.resource_version.as_deref())
}

/// When the order's TTL ends; `None` for never.
fn removal_time(order: &Order, ttl: Option<Duration>) -> Option<Timestamp> {
    let status = order.status.as_ref()?;
    let finished = status.conditions.iter().map(|condition| condition.last_transition_time.0).max()?;
    let own = order.spec.ttl_seconds_after_finished.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    finished.checked_add(own.or(ttl)?).ok()
}

#[cfg(test)]
mod tests {
    use orders_crds::{ConditionType, OrderSpec, OrderStatus, Reason, conditions};

    use super::*;

    fn order(succeeded: Option<bool>, notified: Option<Reason>) -> Order {
        let mut status = OrderStatus::default();
        let at = Timestamp::from_second(1000).unwrap();
        let mut set = |kind, state, reason| conditions::set(&mut status.conditions, kind, state, reason, String::new(), None, at);
        set(ConditionType::Succeeded, succeeded, if succeeded == Some(true) { Reason::Paid } else { Reason::InsufficientFunds });
        if let Some(reason) = notified {
            set(ConditionType::Notified, Some(reason == Reason::Sent), reason);
        }
        Order { status: Some(status), ..Order::new("order-1", OrderSpec::default()) }
    }

    #[test]
    fn the_order_s_own_time_comes_before_the_operator_s() {
        let mut order = order(Some(true), Some(Reason::Sent));
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        assert_eq!(removal_time(&order, None), None);
        assert_eq!(removal_time(&order, Some(Duration::from_secs(60))), at(1060));
        order.spec.ttl_seconds_after_finished = Some(0);
        assert_eq!(removal_time(&order, Some(Duration::from_secs(60))), at(1000));
        assert_eq!(removal_time(&order, None), at(1000));
    }
}
