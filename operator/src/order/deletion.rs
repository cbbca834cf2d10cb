//! Orders that are deleted before their charge is known: settled from memory.
//!
//! An order without the finalizer can vanish within a pass. The pass notices that when
//! it writes the status; the watch notices it as well.

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
    decide::Step, execute::execute, intent::Intent, reconcile::Pass, removal::Removal, status::StatusBuilder, work::next_step,
};
use crate::{
    kube::{OrderGuard, finalizer::LIMIT},
    ports::{Billing, Notify, Purchase},
};

/// Longer than a pass over an order takes.
const PASS: Duration = Duration::from_secs(30);

/// Orders remembered, at most: those that were deleted with something left to do.
const REMEMBERED: usize = 10_000;

/// Settles the charges of orders that are gone.
#[derive(Clone)]
pub struct Deletion {
    billing: Arc<dyn Billing>,
    notify: Arc<dyn Notify>,
    /// Archives what is settled, if there is an archive.
    removal: Option<Removal>,
    tasks: TaskTracker,
    gone: Arc<Mutex<HashMap<String, Gone>>>,
}

/// What is known of an order that is gone, by its UID. The watch shows its deletion and its
/// last pass ends in any order; the final status is archived.
#[derive(Debug, Default)]
struct Gone {
    /// The resource version that was deleted.
    version: Option<String>,
    /// Whether the order is settled, or being settled.
    settled: bool,
}

impl Deletion {
    /// Settles with these services, and archives by `removal` if there is an archive.
    pub fn new(billing: Arc<dyn Billing>, notify: Arc<dyn Notify>, removal: Option<Removal>) -> Self {
        Deletion { billing, notify, removal, tasks: TaskTracker::new(), gone: Arc::default() }
    }

    /// Handles the deletion that the watch shows: a decided order is archived, and a refund that was
    /// requested is made all the same.
    pub fn saw(&self, order: &OrderGuard) {
        let Ok(readable) = &order.0 else { return };
        let status = readable.status.clone().unwrap_or_default();
        let uid = order.uid().unwrap_or_default();
        if status.outcome() == Outcome::Paid && readable.spec.cancel_requested == Some(true) {
            if let Ok(purchase) = Purchase::read(&uid, status.attempt(), &readable.spec) {
                let builder = StatusBuilder::new(status, order.meta().generation);
                self.settle(readable.clone(), purchase, builder);
            }
            return;
        }
        let Some(removal) = &self.removal else { return };
        if next_step(readable, Timestamp::now()) == Step::Done {
            return removal.was_deleted(readable);
        }
        // A pass may be in progress, which archives the order once it is settled.
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

    /// Cancels an order that was deleted while a pass was made over it, if its charge is open or
    /// was made in that pass.
    pub fn settle_if_open(&self, order: &OrderGuard, pass: Pass) {
        let Pass { purchase, before, after, .. } = pass;
        let paid_now = after.status.outcome() == Outcome::Paid && before.outcome() != Outcome::Paid;
        let is_open = before.is_charge_open() || after.status.is_charge_open() || paid_now;
        if let (Ok(purchase), Ok(order), true) = (purchase, &order.0, is_open) {
            self.settle(order.clone(), purchase, after);
        }
    }

    fn settle(&self, order: Order, mut purchase: Purchase, mut builder: StatusBuilder) {
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
            if let Some(removal) = &deletion.removal {
                let mut order = Order { status: Some(builder.status), ..order };
                if let Some(version) = deletion.gone().get(&uid).and_then(|gone| gone.version.clone()) {
                    order.metadata.resource_version = Some(version);
                }
                removal.was_deleted(&order);
            }
        });
    }

    /// Waits for the orders that are being settled, once no more come.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        // Another term of leadership may follow.
        self.tasks.reopen();
    }
}
