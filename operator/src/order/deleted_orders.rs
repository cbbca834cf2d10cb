//! Settles orders whose resource was deleted before their charge was known: the charge is closed, or
//! refunded if it was made. The operator does this from memory, because the resource no longer
//! exists.
//!
//! An order without the finalizer can be deleted during a pass. The pass detects this when it
//! writes the status. The watch reports the deletion as well. The resource of an order with the
//! [`finalizer`](crate::kube::finalizer) exists until a pass has settled the order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use orders_crds::{Order, Outcome};
use tokio_util::task::TaskTracker;

use super::{
    decide::Step, execute::execute, intent::Intent, lifecycle::next_step, pass::Pass, retention::Retention, status::StatusBuilder,
};
use crate::{
    kube::{OrderGuard, finalizer::SETTLEMENT_TIMEOUT},
    ports::{Billing, Notify, Purchase},
};

/// How long a pass over an order takes at most.
const MAX_PASS_DURATION: Duration = Duration::from_secs(30);

/// The maximum number of deleted orders in memory: those that were deleted with steps left to do.
const MAX_ORDERS: usize = 10_000;

/// Settles orders whose resource was deleted.
#[derive(Clone)]
pub struct DeletedOrders {
    billing: Arc<dyn Billing>,
    notify: Arc<dyn Notify>,
    /// Archives settled orders; `None` in tests.
    retention: Option<Retention>,
    tasks: TaskTracker,
    orders: Arc<Mutex<HashMap<String, DeletedOrder>>>,
}

/// The state of a deleted order. The watch may report the deletion before or after the order's last
/// pass ends. In both cases the final status is archived.
#[derive(Debug, Default)]
struct DeletedOrder {
    /// The resource version that was deleted.
    version: Option<String>,
    /// Whether the order is settled, or being settled.
    is_settled: bool,
}

impl DeletedOrders {
    /// Settles orders with these services, and archives them with `retention` if there is an archive.
    pub fn new(billing: Arc<dyn Billing>, notify: Arc<dyn Notify>, retention: Option<Retention>) -> Self {
        DeletedOrders { billing, notify, retention, tasks: TaskTracker::new(), orders: Arc::default() }
    }

    /// Handles a deletion that the watch reports. A decided order is archived. A refund that was
    /// requested is still made.
    pub fn observe(&self, order: &OrderGuard) {
        let Ok(readable) = &order.0 else { return };
        let status = readable.status.clone().unwrap_or_default();
        let uid = order.uid().unwrap_or_default();
        if status.outcome() == Outcome::Paid && readable.spec.cancel_requested == Some(true) {
            if let Ok(purchase) = Purchase::read(&uid, status.attempt(), &readable.spec) {
                let builder = StatusBuilder::new(status, order.meta().generation);
                self.settle(order.clone(), purchase, builder);
            }
            return;
        }
        let Some(retention) = &self.retention else { return };
        if next_step(readable, Timestamp::now()) == Step::Done {
            return retention.archive_deleted(readable);
        }
        // A pass may be in progress. If it settles the order, the order is archived then.
        self.orders().entry(uid.clone()).or_default().version = order.resource_version();
        let (deleted_orders, retention, order) = (self.clone(), retention.clone(), readable.clone());
        tokio::spawn(async move {
            tokio::time::sleep(MAX_PASS_DURATION).await;
            if deleted_orders.orders().get(&uid).is_none_or(|deleted| !deleted.is_settled) {
                retention.archive_deleted(&order);
            }
        });
    }

    /// The deleted orders, by UID.
    fn orders(&self) -> MutexGuard<'_, HashMap<String, DeletedOrder>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.len() >= MAX_ORDERS {
            orders.clear();
        }
        orders
    }

    /// Cancels an order that was deleted during a pass, if its charge is open or was made in that
    /// pass.
    pub fn settle_if_open(&self, order: &OrderGuard, pass: Pass) {
        let Pass { purchase, before, after, .. } = pass;
        let is_newly_paid = after.status.outcome() == Outcome::Paid && before.outcome() != Outcome::Paid;
        let is_open = before.is_charge_open() || after.status.is_charge_open() || is_newly_paid;
        if let (Ok(purchase), true) = (purchase, is_open) {
            self.settle(order.clone(), purchase, after);
        }
    }

    /// Closes or refunds the charge and notifies the customer, in a task of its own. An order that
    /// cannot be read as a whole is settled as well, but not archived.
    fn settle(&self, order: OrderGuard, mut purchase: Purchase, mut builder: StatusBuilder) {
        let (name, uid, deleted_orders) = (order.name_any(), order.uid().unwrap_or_default(), self.clone());
        self.orders().entry(uid.clone()).or_default().is_settled = true;
        self.tasks.spawn(async move {
            tracing::info!(order = name, "the order was deleted before its charge was settled; cancelling it");
            let intent = Intent { cancel: true, ..Intent::default() };
            let (billing, notify) = (&*deleted_orders.billing, &*deleted_orders.notify);
            let settling = async {
                while let Some(next) = execute(&uid, &mut purchase, &intent, &mut builder, billing, notify).await {
                    let delay = next.duration_since(Timestamp::now());
                    tokio::time::sleep(Duration::try_from(delay).unwrap_or_default()).await;
                }
            };
            if tokio::time::timeout(SETTLEMENT_TIMEOUT, settling).await.is_err() {
                metrics::counter!("orders_deletions_abandoned_total").increment(1);
                tracing::error!(
                    order = name,
                    uid,
                    "the charge of a deleted order could not be settled in time; orders-audit shows its state"
                );
                return;
            }
            tracing::info!(order = name, outcome = ?builder.status.outcome(), "the deleted order is settled");
            if let (Some(retention), Ok(order)) = (&deleted_orders.retention, order.0) {
                let mut order = Order { status: Some(builder.status), ..order };
                if let Some(version) = deleted_orders.orders().get(&uid).and_then(|deleted| deleted.version.clone()) {
                    order.metadata.resource_version = Some(version);
                }
                retention.archive_deleted(&order);
            }
        });
    }

    /// Waits until all orders in progress are settled. Call this after the last pass.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        // This replica may become the leader again.
        self.tasks.reopen();
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use orders_crds::{OrderSpec, OrderStatus, Refusal};

    use super::{
        super::test_doubles::{ScriptedServices, charged, refused},
        *,
    };
    use crate::{kube::order_guard::InvalidObject, ports::Delivery};

    /// Returns the calls to billing and notify for an order that was deleted during this pass.
    async fn settle(order: OrderGuard, before: OrderStatus, services: ScriptedServices) -> Vec<String> {
        let services = Arc::new(services);
        let deleted_orders = DeletedOrders::new(services.clone(), services.clone(), None);
        let spec = OrderSpec { login: "a".into(), email: "a@b.cd".into(), amount: "10".into(), ..OrderSpec::default() };
        let purchase = Purchase::read("uid", before.attempt(), &spec).map_err(|error| error.to_string());
        let after = StatusBuilder::new(before.clone(), Some(1));
        deleted_orders.settle_if_open(&order, Pass { purchase, before, after, next: None });
        deleted_orders.finish().await;
        let calls = services.calls.lock().unwrap();
        calls.clone()
    }

    fn metadata() -> ObjectMeta {
        ObjectMeta { name: Some("order-1".into()), uid: Some("uid".into()), ..ObjectMeta::default() }
    }

    #[tokio::test]
    async fn an_open_charge_is_closed_even_if_the_order_does_not_parse_as_a_whole() {
        let spec = OrderSpec { login: "a".into(), email: "a@b.cd".into(), amount: "10".into(), ..OrderSpec::default() };
        for order in [
            OrderGuard(Err(InvalidObject { metadata: metadata() })),
            OrderGuard(Ok(Order { metadata: metadata(), spec, status: None })),
        ] {
            let services = ScriptedServices::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
            let calls = settle(order.clone(), OrderStatus::default(), services).await;
            assert_eq!(calls, ["close uid", "notify Refused(Cancelled) uid"], "{order:?}");
            let services = ScriptedServices::new([charged()], [Ok(Delivery::Sent)]);
            let calls = settle(order, OrderStatus::default(), services).await;
            assert_eq!(calls[..2], ["close uid", "refund uid"], "the charge was made before it could be closed");
        }
    }
}
