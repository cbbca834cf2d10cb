//! Orders that are deleted before their charge is known.
//!
//! In most orders nothing is open for longer than one pass, and a finalizer would
//! cost each two more writes. So an order gets one only when a pass ends with its
//! charge unknown or a refund pending. One that vanishes within a pass is noticed
//! when its status is written, and settled from memory.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use orders_crds::{Order, OrderStatus, order::FINALIZER};
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::{
    carry_out::carry_out,
    controller::{CALL_TIMEOUT, Context, FIELD_MANAGER, Guarded, ReconcileError, Written, written},
    purchase::Purchase,
    status::Progress,
    wanted::Wanted,
};

/// How long a deleted order is kept for its charge to become known. After that it
/// is let go, so that a namespace can go away whose billing never comes back.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Settles the charges of orders that are gone.
#[derive(Clone, Debug, Default)]
pub struct Deletion(TaskTracker);

impl Deletion {
    /// Cancels an order that was deleted while it was being worked on.
    pub fn settle(&self, order: &Arc<Guarded>, mut purchase: Purchase, mut progress: Progress, context: &Arc<Context>) {
        let (name, uid) = (order.name_any(), order.uid().unwrap_or_default());
        let (order, context) = (order.clone(), context.clone());
        self.0.spawn(async move {
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
                        retention.was_deleted(&Order { status: Some(progress.status), ..order.clone() });
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
        self.0.close();
        self.0.wait().await;
        // Another term of leadership may follow.
        self.0.reopen();
    }
}

/// Whether this order is kept from going away by us.
pub(crate) fn has_finalizer(order: &Guarded) -> bool {
    order.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Whether it should be: its charge was begun and is not known. One that is being
/// deleted cannot be given a finalizer any more.
pub(crate) fn needs_finalizer(order: &Guarded, status: &OrderStatus) -> bool {
    let begun = !status.conditions.is_empty() && status.is_charge_open();
    begun && (order.meta().deletion_timestamp.is_none() || has_finalizer(order))
}

/// Whether its charge has been unknown for so long since its deletion that it is let go.
pub(crate) fn is_overdue(order: &Guarded) -> bool {
    let overdue = order.meta().deletion_timestamp.as_ref().is_some_and(|deleted| deleted.0 + LIMIT < Timestamp::now());
    if overdue && has_finalizer(order) {
        metrics::counter!("orders_deletions_abandoned_total").increment(1);
        tracing::error!(order = order.name_any(), "let go with its charge unknown; orders-audit tells what became of it");
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
