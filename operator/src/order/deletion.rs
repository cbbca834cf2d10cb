//! Settles orders that are deleted before their charge is known: their charge is closed, or
//! refunded if it was made. The operator does this from memory, because the resource is gone.
//!
//! An order without the finalizer can be deleted during a pass. The pass detects this when it
//! writes the status. The watch reports the deletion as well.

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
    decide::Step, execute::execute, intent::Intent, pass::Pass, removal::Removal, status::StatusBuilder, work::next_step,
};
use crate::{
    kube::{OrderGuard, finalizer::LIMIT},
    ports::{Billing, Notify, Purchase},
};

/// Longer than any pass over an order takes.
const PASS: Duration = Duration::from_secs(30);

/// The maximum number of deleted orders in memory: those that were deleted with steps left to do.
const REMEMBERED: usize = 10_000;

/// Settles the charges of orders that are gone.
#[derive(Clone)]
pub struct Deletion {
    billing: Arc<dyn Billing>,
    notify: Arc<dyn Notify>,
    /// Archives settled orders, if there is an archive.
    removal: Option<Removal>,
    tasks: TaskTracker,
    gone: Arc<Mutex<HashMap<String, Gone>>>,
}

/// The state of a deleted order, by the order's UID. The watch may report the deletion before or
/// after the order's last pass ends. In both cases the final status is archived.
#[derive(Debug, Default)]
struct Gone {
    /// The resource version that was deleted.
    version: Option<String>,
    /// Whether the order is settled, or being settled.
    settled: bool,
}

impl Deletion {
    /// Settles orders with these services, and archives them with `removal` if there is an archive.
    pub fn new(billing: Arc<dyn Billing>, notify: Arc<dyn Notify>, removal: Option<Removal>) -> Self {
        Deletion { billing, notify, removal, tasks: TaskTracker::new(), gone: Arc::default() }
    }

    /// Handles a deletion that the watch reports. A decided order is archived. A refund that was
    /// requested is still made.
    pub fn saw(&self, order: &OrderGuard) {
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
        let Some(removal) = &self.removal else { return };
        if next_step(readable, Timestamp::now()) == Step::Done {
            return removal.was_deleted(readable);
        }
        // A pass may be in progress. If it settles the order, the order is archived then.
        self.gone().entry(uid.clone()).or_default().version = order.resource_version();
        let (deletion, removal, order) = (self.clone(), removal.clone(), readable.clone());
        tokio::spawn(async move {
            tokio::time::sleep(PASS).await;
            if deletion.gone().get(&uid).is_none_or(|gone| !gone.settled) {
                removal.was_deleted(&order);
            }
        });
    }

    fn gone(&self) -> MutexGuard<'_, HashMap<String, Gone>> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() >= REMEMBERED {
            gone.clear();
        }
        gone
    }

    /// Cancels an order that was deleted during a pass, if its charge is open or was made in that
    /// pass.
    pub fn settle_if_open(&self, order: &OrderGuard, pass: Pass) {
        let Pass { purchase, before, after, .. } = pass;
        let paid_now = after.status.outcome() == Outcome::Paid && before.outcome() != Outcome::Paid;
        let is_open = before.is_charge_open() || after.status.is_charge_open() || paid_now;
        if let (Ok(purchase), true) = (purchase, is_open) {
            self.settle(order.clone(), purchase, after);
        }
    }

    /// Closes or refunds the charge and notifies the customer, in a task of its own. An order that
    /// cannot be read as a whole is settled as well, but not archived.
    fn settle(&self, order: OrderGuard, mut purchase: Purchase, mut builder: StatusBuilder) {
        let (name, uid, deletion) = (order.name_any(), order.uid().unwrap_or_default(), self.clone());
        self.gone().entry(uid.clone()).or_default().settled = true;
        self.tasks.spawn(async move {
            tracing::info!(order = name, "deleted while it was being charged; cancelling it");
            let intent = Intent { cancel: true, ..Intent::default() };
            let (billing, notify) = (&*deletion.billing, &*deletion.notify);
            let settling = async {
                while let Some(next) = execute(&uid, &mut purchase, &intent, &mut builder, billing, notify).await {
                    let pause = next.duration_since(Timestamp::now());
                    tokio::time::sleep(Duration::try_from(pause).unwrap_or_default()).await;
                }
            };
            if tokio::time::timeout(LIMIT, settling).await.is_err() {
                metrics::counter!("orders_deletions_abandoned_total").increment(1);
                tracing::error!(order = name, uid, "a deleted order's charge is not known; orders-audit shows what became of it");
                return;
            }
            tracing::info!(order = name, outcome = ?builder.status.outcome(), "settled");
            if let (Some(removal), Ok(order)) = (&deletion.removal, order.0) {
                let mut order = Order { status: Some(builder.status), ..order };
                if let Some(version) = deletion.gone().get(&uid).and_then(|gone| gone.version.clone()) {
                    order.metadata.resource_version = Some(version);
                }
                removal.was_deleted(&order);
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
        super::script::{Script, charged, refused},
        *,
    };
    use crate::{kube::order_guard::Unreadable, ports::Delivery};

    /// Returns the calls to billing and notify for an order that was deleted during this pass.
    async fn settled(order: OrderGuard, before: OrderStatus, script: Script) -> Vec<String> {
        let script = Arc::new(script);
        let deletion = Deletion::new(script.clone(), script.clone(), None);
        let spec = OrderSpec { login: "a".into(), email: "a@b.cd".into(), amount: "10".into(), ..OrderSpec::default() };
        let purchase = Purchase::read("uid", before.attempt(), &spec).map_err(|error| error.to_string());
        let after = StatusBuilder::new(before.clone(), Some(1));
        deletion.settle_if_open(&order, Pass { purchase, before, after, next: None });
        deletion.finish().await;
        let asked = script.asked.lock().unwrap();
        asked.clone()
    }

    fn metadata() -> ObjectMeta {
        ObjectMeta { name: Some("order-1".into()), uid: Some("uid".into()), ..ObjectMeta::default() }
    }

    #[tokio::test]
    async fn an_open_charge_is_closed_also_where_the_order_can_be_read_only_in_parts() {
        let spec = OrderSpec { login: "a".into(), email: "a@b.cd".into(), amount: "10".into(), ..OrderSpec::default() };
        for order in [
            OrderGuard(Err(Unreadable { metadata: metadata() })),
            OrderGuard(Ok(Order { metadata: metadata(), spec, status: None })),
        ] {
            let script = Script::new([refused(Refusal::Cancelled)], [Ok(Delivery::Sent)]);
            let asked = settled(order.clone(), OrderStatus::default(), script).await;
            assert_eq!(asked, ["close uid", "notify Refused(Cancelled) uid"], "{order:?}");
            let script = Script::new([charged()], [Ok(Delivery::Sent)]);
            let asked = settled(order, OrderStatus::default(), script).await;
            assert_eq!(asked[..2], ["close uid", "refund uid"], "the charge was made before it could be closed");
        }
    }
}
