//! Archives finished orders at once, has their charges captured, and removes their resources from
//! Kubernetes after their TTL.
//!
//! A charge is captured only if the archive has its order. An order is removed only in the version that the archive has stored, so nothing that happened
//! to it is lost. No order is removed before it is archived: while the archive is unavailable,
//! orders stay. Without an archive, charges are captured once their orders are finished, and no order
//! is removed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
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

use super::{archived::Archived, captures::Captures, lifecycle::is_finished};
use crate::{
    kube::{CALL_TIMEOUT, OrderGuard},
    ports::http::{
        archive::{Archive, MAX_BATCH, NotArchived},
        authorizations::Authorizations,
    },
};

/// How often the orders are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the archive must have stored an order before its resource is removed. The HTTP API reads
/// the archive before it creates an order under a key, and may take this long until it has created
/// the order. The resource must still exist at that time.
const MIN_ARCHIVED_TIME: Duration = Duration::from_secs(15);

/// The maximum number of removals at the same time. It is large enough that on a busy API server as
/// many orders are removed as are created.
const MAX_CONCURRENT_REMOVALS: usize = 32;

/// The maximum number of orders removed in one check, so that new orders do not wait for the API
/// server.
const MAX_REMOVALS_PER_CHECK: usize = 500;

/// Archives, captures and removes finished orders.
#[derive(Clone)]
pub struct Retention {
    /// `None`: no order is archived or removed.
    archive: Option<Archive>,
    authorizations: Authorizations,
    client: Client,
    ttl: Option<Duration>,
    removals: Removals,
}

/// The UIDs of the orders that this operator is removing. The archive has stored them.
#[derive(Clone, Debug, Default)]
pub struct Removals(Arc<Mutex<HashSet<String>>>);

impl Removals {
    fn insert(&self, uid: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
    }

    /// Removes an order from the set. Returns whether the operator was removing it.
    pub fn remove(&self, uid: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
    }
}

impl Retention {
    /// Archives orders in this archive, if there is one, and removes each archived order `ttl` after
    /// it is finished, unless the order has its own TTL. `None` means never.
    pub fn new(archive: Option<Archive>, authorizations: Authorizations, client: Client, ttl: Option<Duration>) -> Self {
        Retention { archive, authorizations, client, ttl, removals: Removals::default() }
    }

    /// The removals that this operator makes.
    pub fn removals(&self) -> Removals {
        self.removals.clone()
    }

    /// Archives, captures and removes orders. Never returns.
    pub async fn run(&self, orders: Store<OrderGuard>) {
        let (mut archived, mut captures) = (Archived::default(), Captures::new(self.authorizations.clone()));
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.check(&orders, &mut archived, &mut captures).await;
        }
    }

    /// Archives the orders that the archive does not have yet, captures the charges of archived
    /// orders, and removes the orders that are due.
    async fn check(&self, orders: &Store<OrderGuard>, archived: &mut Archived, captures: &mut Captures) {
        let (live, now) = (orders.state(), Timestamp::now());
        metrics::gauge!("orders_live").set(live.len() as f64);
        let finished: Vec<&Order> =
            live.iter().filter_map(|order| order.0.as_ref().ok()).filter(|order| is_finished(order, now)).collect();
        let finished_uids: HashSet<&str> = finished.iter().filter_map(|order| order.metadata.uid.as_deref()).collect();
        archived.retain(&finished_uids);
        captures.retain(&finished_uids);
        let Some(archive) = &self.archive else {
            return captures.capture(finished.iter().copied()).await;
        };

        #[cfg(debug_assertions)]
        if orders_service::seeded_bugs::is_on("capture-before-archive") {
            captures.capture(finished.iter().copied()).await;
        }
        let new: Vec<&Order> =
            finished.iter().copied().filter(|order| !archived.contains(order) && !archived.is_refused(order)).collect();
        let mut backlog = new.len() + archived.refused();
        for batch in new.chunks(MAX_BATCH) {
            backlog -= put(archive, batch, archived).await;
        }
        metrics::gauge!("orders_archive_backlog").set(backlog as f64);
        captures.capture(finished.iter().copied().filter(|order| archived.contains(order))).await;

        // The calls to the archive may have taken long.
        let now = Timestamp::now();
        let due_time = |order: &Order| {
            let time = removal_time(order, self.ttl)?.max(archived.archived_at(order)? + MIN_ARCHIVED_TIME);
            (time <= now).then_some(time)
        };
        let mut due: Vec<_> = finished.iter().filter_map(|order| Some((due_time(order)?, *order))).collect();
        // The order that is due for the longest time is removed first.
        due.sort_unstable_by_key(|(time, _)| *time);
        let removals: Vec<_> = due.iter().take(MAX_REMOVALS_PER_CHECK).map(|(_, order)| self.remove(order)).collect();
        stream::iter(removals).buffer_unordered(MAX_CONCURRENT_REMOVALS).for_each(|()| std::future::ready(())).await;
    }

    /// Removes the order if it still has the version that is archived. Only a request for a single
    /// order can have this precondition, and many such requests cost the API server no more than one
    /// request for many orders.
    async fn remove(&self, order: &Order) {
        let orders: Api<Order> = Api::namespaced(self.client.clone(), &order.namespace().unwrap_or_default());
        let uid = order.uid().unwrap_or_default();
        self.removals.insert(uid.clone());
        let preconditions = Preconditions { uid: order.uid(), resource_version: order.resource_version() };
        let (name, params) =
            (order.name_any(), DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() });
        match tokio::time::timeout(CALL_TIMEOUT, orders.delete(&name, &params)).await {
            Ok(Ok(_)) => return metrics::counter!("orders_removed_total").increment(1),
            // The order has another version by now, or no longer exists.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {}
            Ok(Err(error)) => tracing::warn!(order = name, %error, "not removed; retrying"),
            Err(_) => tracing::warn!(order = name, "not removed in time; retrying"),
        }
        self.removals.remove(&uid);
    }
}

/// Archives a batch, and returns how many of its orders the archive has stored. If the archive
/// refuses the batch, each order is sent separately, so that a refused order does not prevent the
/// others from being archived.
async fn put(archive: &Archive, batch: &[&Order], archived: &mut Archived) -> usize {
    match archive.put(batch).await {
        Ok(()) => {
            batch.iter().for_each(|order| archived.record(order));
            return batch.len();
        }
        Err(NotArchived::Unavailable(error)) => {
            tracing::warn!(orders = batch.len(), error, "not archived; retrying");
            #[cfg(debug_assertions)]
            if orders_service::seeded_bugs::is_on("removed-unarchived") {
                batch.iter().for_each(|order| archived.record_as_old(order));
            }
            return 0;
        }
        Err(NotArchived::Refused(_)) => {}
    }
    let mut stored = 0;
    for order in batch {
        match archive.put(&[order]).await {
            Ok(()) => {
                archived.record(order);
                stored += 1;
            }
            Err(NotArchived::Unavailable(error)) => tracing::warn!(order = order.name_any(), error, "not archived"),
            Err(NotArchived::Refused(error)) => {
                tracing::error!(order = order.name_any(), error, "the archive refuses this order; it is not removed");
                archived.record_refused(order);
            }
        }
    }
    stored
}

/// When the order's TTL ends; `None` for never.
fn removal_time(order: &Order, ttl: Option<Duration>) -> Option<Timestamp> {
    let status = order.status.as_ref()?;
    let finished = status.conditions.iter().map(|condition| condition.last_transition_time.0).max()?;
    let own_ttl = order.spec.ttl_seconds_after_finished.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    finished.checked_add(own_ttl.or(ttl)?).ok()
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
    fn the_ttl_of_an_order_overrides_the_operators_ttl() {
        let mut order = order(Some(true), Some(Reason::Sent));
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        assert_eq!(removal_time(&order, None), None);
        assert_eq!(removal_time(&order, Some(Duration::from_secs(60))), at(1060));
        order.spec.ttl_seconds_after_finished = Some(0);
        assert_eq!(removal_time(&order, Some(Duration::from_secs(60))), at(1000));
        assert_eq!(removal_time(&order, None), at(1000));
    }
}
