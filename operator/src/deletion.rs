//! Orders that are deleted before their charge is known.
//!
//! In most orders nothing is open for longer than one pass, and a finalizer would
//! cost each two more writes. So an order gets one only when a pass ends with its
//! charge unknown or a refund pending. One that vanishes within a pass is noticed
//! when its status is written, and settled from memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use orders_crds::{Order, OrderStatus, Outcome, order::FINALIZER};
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::{
    carry_out::carry_out,
    controller::{CALL_TIMEOUT, Context, FIELD_MANAGER, ReconcileError, Written, written},
    decide::{Step, decide},
    guarded::Guarded,
    purchase::Purchase,
    status::Progress,
    wanted::Wanted,
};

/// How long a deleted order is kept for its charge to become known and its customer to be told. After
/// that it is let go, so that a namespace can go away whose billing never comes back.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Longer than a pass over an order takes.
const PASS: Duration = Duration::from_secs(30);

/// Orders remembered, at most: those that were deleted with something left to do.
const REMEMBERED: usize = 10_000;

/// Settles the charges of orders that are gone.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    tasks: TaskTracker,
    gone: Arc<Mutex<HashMap<String, Gone>>>,
}

/// What is known of an order that is gone, by its UID. That it was deleted is heard,
/// and its last pass ends, in any order; what it came to in the end is archived.
#[derive(Debug, Default)]
struct Gone {
    /// The version as which it was deleted.
    version: Option<String>,
    /// Whether it is settled, or being so.
    settled: bool,
}

impl Deletion {
    /// Takes in that an order is gone: what was decided goes to the archive, and a
    /// refund that was asked for is made all the same.
    pub(crate) fn saw(&self, order: &Guarded, context: &Arc<Context>) {
        let Ok(readable) = &order.0 else { return };
        let status = readable.status.clone().unwrap_or_default();
        if status.outcome() == Outcome::Paid && readable.spec.cancel_requested == Some(true) {
            let uid = order.uid().unwrap_or_default();
            if let Ok(purchase) = Purchase::read(&uid, status.attempt(), &readable.spec) {
                let progress = Progress::new(status, order.meta().generation);
                self.settle(&Arc::new(Guarded(Ok(readable.clone()))), purchase, progress, context);
            }
        } else if let Some(retention) = &context.retention {
            let wanted = Wanted::of(order.meta(), Some(&readable.spec), &status);
            if decide(&status, &wanted, Timestamp::now()) == Step::Done {
                return retention.was_deleted(readable);
            }
            // It may be under way right now, and is archived once it is settled then.
            let uid = order.uid().unwrap_or_default();
            self.gone().entry(uid.clone()).or_default().version = order.resource_version();
            let (deletion, retention, order) = (self.clone(), retention.clone(), readable.clone());
            tokio::spawn(async move {
                tokio::time::sleep(PASS).await;
                if deletion.gone().get(&uid).is_none_or(|gone| !gone.settled) {
                    retention.was_deleted(&order);
                }
            });
        }
    }

    fn gone(&self) -> MutexGuard<'_, HashMap<String, Gone>> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() >= REMEMBERED {
            gone.clear();
        }
        gone
    }

    /// Cancels an order that was deleted while it was being worked on, if its charge
    /// is open, or was made in this very pass.
    pub(crate) fn settle_if_open(
        &self,
        order: &Arc<Guarded>,
        purchase: Option<Purchase>,
        before: &OrderStatus,
        progress: Progress,
        context: &Arc<Context>,
    ) {
        let paid_now = progress.status.outcome() == Outcome::Paid && before.outcome() != Outcome::Paid;
        let is_open = before.is_charge_open() || progress.status.is_charge_open() || paid_now;
        if let (Some(purchase), true) = (purchase, is_open) {
            self.settle(order, purchase, progress, context);
        }
    }

    fn settle(&self, order: &Arc<Guarded>, mut purchase: Purchase, mut progress: Progress, context: &Arc<Context>) {
        let (name, uid) = (order.name_any(), order.uid().unwrap_or_default());
        let (order, context, deletion) = (order.clone(), context.clone(), self.clone());
        self.gone().entry(uid.clone()).or_default().settled = true;
        self.tasks.spawn(async move {
            tracing::info!(order = name, "deleted while it was being charged; cancelling it");
            let wanted = Wanted { cancel: true, ..Wanted::default() };
            let settling = async {
                while let Some(until) =
                    carry_out(&uid, &mut purchase, &wanted, &mut progress, &*context.billing, &*context.notify).await
                {
                    let pause = until.duration_since(Timestamp::now());
                    tokio::time::sleep(Duration::try_from(pause).unwrap_or_default()).await;
                }
            };
            match tokio::time::timeout(LIMIT, settling).await {
                Ok(()) => {
                    tracing::info!(order = name, outcome = ?progress.status.outcome(), "settled");
                    if let (Some(retention), Ok(order)) = (&context.retention, &order.0) {
                        let mut order = Order { status: Some(progress.status), ..order.clone() };
                        if let Some(version) = deletion.gone().get(&uid).and_then(|gone| gone.version.clone()) {
                            order.metadata.resource_version = Some(version);
                        }
                        retention.was_deleted(&order);
                    }
                }
                Err(_) => {
                    metrics::counter!("orders_deletions_abandoned_total").increment(1);
                    tracing::error!(
                        order = name,
                        uid,
                        "a deleted order's charge is not known; orders-audit tells what became of it"
                    );
                }
            }
        });
    }

    /// Waits for those under way, once no more come.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        // Another term of leadership may follow.
        self.tasks.reopen();
    }
}

/// Whether this order is kept from going away by us.
pub(crate) fn has_finalizer(order: &Guarded) -> bool {
    order.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Whether it should be: its charge was begun and is not known, or it is being deleted and its customer has yet
/// to be told what came of that. One that is being deleted cannot be given a finalizer any more.
pub(crate) fn needs_finalizer(order: &Guarded, status: &OrderStatus) -> bool {
    let charge_open = !status.conditions.is_empty() && status.is_charge_open();
    match order.meta().deletion_timestamp {
        None => charge_open,
        Some(_) => has_finalizer(order) && (charge_open || status.is_message_open()),
    }
}

/// Whether something has been open for so long since its deletion that it is let go.
pub(crate) fn is_overdue(order: &Guarded) -> bool {
    let overdue = order.meta().deletion_timestamp.as_ref().is_some_and(|deleted| deleted.0 + LIMIT < Timestamp::now());
    if overdue && has_finalizer(order) {
        metrics::counter!("orders_deletions_abandoned_total").increment(1);
        tracing::error!(
            order = order.name_any(),
            "let go with its charge unknown or its customer untold; orders-audit tells what became of the charge"
        );
    }
    overdue
}

/// Adds or removes the finalizer.
pub(crate) async fn set_finalizer(
    order: &Guarded,
    version: Option<String>,
    needed: bool,
    client: &Client,
) -> Result<Written, ReconcileError> {
    let mut finalizers: Vec<&str> = order.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
    if needed {
        finalizers.push(FINALIZER);
    }
    let orders: Api<Guarded> = Api::namespaced(client.clone(), &order.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } }));
    let (name, params) = (order.name_any(), PatchParams::apply(FIELD_MANAGER));
    written(order, &orders, tokio::time::timeout(CALL_TIMEOUT, orders.patch(&name, &params, &patch)).await?).await
}
