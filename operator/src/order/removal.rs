//! Finished orders: archived at once, removed from Kubernetes when their time is up.
//!
//! An order is removed only as the version that the archive has, so nothing that happened
//! to it is lost. No order is removed unarchived: while the archive is away, orders stay.

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

/// How often orders are looked through.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the archive has had an order before its resource is removed. The public
/// API looks into the archive before it creates an order under a key, and may take
/// so long until it has created it: the resource must still be there then.
const OVERLAP: Duration = Duration::from_secs(15);

/// Removals at once: so many that on a busy API server as many orders go as come.
const AT_ONCE: usize = 32;

/// Orders removed in one look, so that new ones do not wait for the API server.
const REMOVALS: usize = 500;

/// Finished orders, on their way out.
#[derive(Clone)]
pub struct Removal {
    archive: Archive,
    client: Client,
    ttl: Option<Duration>,
    /// Orders that others deleted, for the archive.
    deleted: Arc<Mutex<Vec<Order>>>,
    /// UIDs of those that are being removed from here: the archive has them.
    removing: Arc<Mutex<HashSet<String>>>,
}

/// What the archive has of the orders that are live, and what it does not take.
#[derive(Debug, Default)]
struct Archived {
    /// By UID: the version, and since when.
    versions: HashMap<String, (String, Timestamp)>,
    /// By UID: the version that was refused.
    refused: HashMap<String, String>,
}

impl Removal {
    /// Keeps orders in this archive, and removes those that do not say otherwise
    /// so long after they are finished; `None` for never.
    pub fn new(archive: Archive, client: Client, ttl: Option<Duration>) -> Self {
        Removal { archive, client, ttl, deleted: Arc::default(), removing: Arc::default() }
    }

    /// Has an order archived that is gone from Kubernetes, if it was decided.
    pub fn was_deleted(&self, order: &Order) {
        if self.removing().remove(&order.uid().unwrap_or_default()) {
            return;
        }
        if order.status.as_ref().is_some_and(|status| !status.is_charge_open()) {
            self.deleted.lock().unwrap_or_else(PoisonError::into_inner).push(order.clone());
        }
    }

    /// Archives and removes for ever.
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

        let time_of = |order: &Order| {
            let time = removal_time(order, self.ttl)?.max(archived.since(order)? + OVERLAP);
            (time <= now).then_some(time)
        };
        let mut due: Vec<_> = finished.iter().filter_map(|order| Some((time_of(order)?, *order))).collect();
        // Who has waited longest goes first.
        due.sort_unstable_by_key(|(time, _)| *time);
        let removals: Vec<_> = due.iter().take(REMOVALS).map(|(_, order)| self.remove(order)).collect();
        stream::iter(removals).buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    }

    /// Archives a batch; how many of it the archive has now. If it takes the batch
    /// not as it is, each order by itself, so that one does not keep the others back.
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

    /// Removes the order, if it is still what the archive has. Several requests of
    /// one cost the API server no more than one of several, and only they can say this.
    async fn remove(&self, order: &Order) {
        let orders: Api<Order> = Api::namespaced(self.client.clone(), &order.namespace().unwrap_or_default());
        let uid = order.uid().unwrap_or_default();
        self.removing().insert(uid.clone());
        let same = Preconditions { uid: order.uid(), resource_version: order.resource_version() };
        let (name, params) = (order.name_any(), DeleteParams { preconditions: Some(same), ..DeleteParams::background() });
        match tokio::time::timeout(CALL_TIMEOUT, orders.delete(&name, &params)).await {
            Ok(Ok(_)) => return metrics::counter!("orders_removed_total").increment(1),
            // It is another version by now, or gone.
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

    /// Counts the order as archived long ago.
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

/// The order's UID and version; Kubernetes gives both to each resource.
fn version(order: &Order) -> Option<(&str, &str)> {
    order.metadata.uid.as_deref().zip(order.metadata.resource_version.as_deref())
}

/// When the order's time is up; `None` for never.
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
