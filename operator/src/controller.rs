//! The controller: for each order, decide, carry out, write the status once.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config as ControllerConfig},
        reflector, watcher,
    },
};
use orders_crds::{Order, OrderStatus};
use orders_service::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::{
    carry_out::carry_out,
    clients::{Billing, Notify},
    decide::{Step, decide},
    events::Publisher,
    purchase::Purchase,
    status::Progress,
};

/// An order as it comes: one that cannot be read must not stop the others.
type Guarded = DeserializeGuard<Order>;

/// How long the API server may take for a status write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Field manager of the status.
const FIELD_MANAGER: &str = "orders-operator";

/// What reconciling needs.
pub struct Context {
    /// For the status.
    pub client: Client,
    /// Charges.
    pub billing: Box<dyn Billing>,
    /// Tells customers.
    pub notify: Box<dyn Notify>,
    /// Tells the story.
    pub events: Publisher,
}

/// Why an order could not be brought forward now.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The status was not written.
    #[error("status: {0}")]
    Status(#[from] kube::Error),
    /// The API server did not answer a status write in time.
    #[error("status: the API server did not answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

/// Runs until shutdown; then finishes the orders under way.
pub async fn run(context: Arc<Context>, namespace: Option<&str>, concurrency: u16, shutdown: Shutdown) {
    let orders: Api<Guarded> = match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let (store, writer) = reflector::store();
    let unfinished = watcher(orders, watcher::Config::default())
        .default_backoff()
        // Who owns which field is of no use here and would be half of the memory.
        .modify(|order| order.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        .try_filter(|order| ready(needs_work(order)));
    Controller::for_stream(unfinished, store)
        .with_config(ControllerConfig::default().concurrency(concurrency))
        .graceful_shutdown_on(shutdown.requested())
        .run(reconcile, retry_later, context)
        .for_each(|_| ready(()))
        .await;
}

fn needs_work(order: &Guarded) -> bool {
    order.meta().deletion_timestamp.is_none()
        && order
            .0
            .as_ref()
            .map_or(true, |order| order.status.as_ref().is_none_or(|status| decide(status, Timestamp::now()) != Step::Done))
}

async fn reconcile(order: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if !needs_work(&order) {
        return Ok(Action::await_change());
    }
    let before = order.0.as_ref().ok().and_then(|order| order.status.clone()).unwrap_or_default();
    let mut progress = Progress::new(before.clone(), order.meta().generation);
    let go_on = match read(&order) {
        Ok(purchase) => carry_out(&purchase, &mut progress, &*context.billing, &*context.notify).await,
        Err(problem) => {
            progress.invalid(&problem, Timestamp::now());
            None
        }
    };
    if progress.status != before {
        if !write_status(&order, &progress.status, &context.client).await? {
            return Ok(Action::await_change());
        }
        context.events.publish(&progress.story, &order.object_ref(&())).await;
    }
    Ok(go_on.map_or_else(Action::await_change, requeue_at))
}

fn read(order: &Guarded) -> Result<Purchase, String> {
    let uid = order.uid().unwrap_or_default();
    match &order.0 {
        Ok(order) => Purchase::read(&uid, &order.spec).map_err(|error| error.to_string()),
        Err(InvalidObject { error, .. }) => Err(error.clone()),
    }
}

/// Writes the status if the order is still the one that was looked at; false if
/// it is gone.
async fn write_status(order: &Guarded, status: &OrderStatus, client: &Client) -> Result<bool, ReconcileError> {
    let orders: Api<Guarded> = Api::namespaced(client.clone(), &order.namespace().unwrap_or_default());
    let patch = Patch::Merge(status_patch(order.resource_version(), status));
    let (name, params) = (order.name_any(), PatchParams::apply(FIELD_MANAGER));
    match tokio::time::timeout(WRITE_TIMEOUT, orders.patch_status(&name, &params, &patch)).await? {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            tracing::info!(order = name, "the order was deleted meanwhile");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// A merge patch (RFC 7396) that applies only to the version that was read;
/// fields that the status has no more are removed by null.
fn status_patch(resource_version: Option<String>, status: &OrderStatus) -> Value {
    let mut fields = json!({ "balance": null, "charge": null, "retry": null });
    if let (Value::Object(fields), Ok(Value::Object(set))) = (&mut fields, serde_json::to_value(status)) {
        fields.extend(set);
    }
    json!({ "metadata": { "resourceVersion": resource_version }, "status": fields })
}

fn requeue_at(time: Timestamp) -> Action {
    let delay = time.duration_since(Timestamp::now());
    // Never at once: a clock that is off must not make this spin.
    Action::requeue(Duration::try_from(delay).unwrap_or_default().max(Duration::from_millis(50)))
}

/// A status that could not be written. The order is unchanged, so everything is
/// asked again, under the same keys.
fn retry_later(order: Arc<Guarded>, error: &ReconcileError, _: Arc<Context>) -> Action {
    let conflict = matches!(error, ReconcileError::Status(kube::Error::Api(status)) if status.is_conflict());
    if conflict {
        // Somebody else changed it; the watch brings the new version.
        return Action::requeue(Duration::from_millis(200));
    }
    tracing::warn!(order = order.name_any(), %error, "order not brought forward; trying again");
    Action::requeue(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_patch_removes_what_is_no_more() {
        let patch = status_patch(Some("7".into()), &OrderStatus::default());
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["status"], json!({ "balance": null, "charge": null, "retry": null }));
    }
}
