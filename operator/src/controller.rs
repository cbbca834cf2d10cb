//! The controller: for each order, decide, carry out, write the status once.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, DeserializeGuard},
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config as ControllerConfig},
        reflector, watcher,
    },
};
use orders_crds::{Order, OrderSpec, OrderStatus, Outcome};
use orders_service::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::{
    carry_out::carry_out,
    clients::{Billing, Notify},
    decide::{Step, decide},
    events::{Happened, Publisher},
    purchase::Purchase,
    status::Progress,
};

/// An order as it comes: one that cannot be read must not stop the others.
type Guarded = DeserializeGuard<Order>;

/// How long one call to the Kubernetes API may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// An order that is older than this when it is first seen may be gone by now:
/// before it is charged the API server is asked. One that is seen at once is
/// not, which would cost every order a request.
const FRESH: Duration = Duration::from_secs(2);

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
    /// The Kubernetes API refused or failed.
    #[error("Kubernetes API: {0}")]
    Kube(#[from] kube::Error),
    /// The Kubernetes API did not answer in time.
    #[error("the Kubernetes API did not answer in time")]
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
    let work = Controller::for_stream(unfinished, store)
        .with_config(ControllerConfig::default().concurrency(concurrency))
        .graceful_shutdown_on(shutdown.clone().requested())
        .run(reconcile, retry_later, context)
        .for_each(|_| ready(()));
    tokio::select! {
        () = work => {}
        () = shutdown.out_of_time() => tracing::warn!("stopped with orders under way; the next leader goes on with them"),
    }
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
    let Some((spec, before)) = read(&order, &context.client).await? else { return Ok(Action::await_change()) };
    let mut progress = Progress::new(before.clone(), order.meta().generation);
    let purchase =
        spec.and_then(|spec| Purchase::read(&order.uid().unwrap_or_default(), &spec).map_err(|error| error.to_string()));
    let go_on = match purchase {
        Ok(purchase) => carry_out(&purchase, &mut progress, &*context.billing, &*context.notify).await,
        // What was decided stays decided, whatever can be read of it now.
        Err(problem) if before.outcome() != Outcome::Undecided => {
            tracing::warn!(order = order.name_any(), problem, "a decided order cannot be read any more");
            None
        }
        Err(problem) => {
            progress.invalid(&problem, Timestamp::now());
            None
        }
    };
    if progress.status != before {
        if !write_status(&order, &progress.status, &context.client).await? {
            return Ok(Action::await_change());
        }
        progress.story.iter().for_each(|happened| observe(&order, happened));
        context.events.publish(&progress.story, &order.object_ref(&())).await;
    }
    Ok(go_on.map_or_else(Action::await_change, requeue_at))
}

/// The order's spec, or why it cannot be read, and its status; `None` if it is
/// gone, or another one has its name. What may be out of date is asked for anew.
/// One that cannot be read as a whole is looked at part by part: a status that
/// cannot be read must not turn into a refusal of what may be paid already.
async fn read(order: &Guarded, client: &Client) -> Result<Option<(Result<OrderSpec, String>, OrderStatus)>, ReconcileError> {
    match &order.0 {
        Ok(order) if order.status.is_some() || is_fresh(order) => {
            return Ok(Some((Ok(order.spec.clone()), order.status.clone().unwrap_or_default())));
        }
        _ => {}
    }
    let resource = ApiResource::erase::<Order>(&());
    let orders: Api<DynamicObject> = Api::namespaced_with(client.clone(), &order.namespace().unwrap_or_default(), &resource);
    let object = tokio::time::timeout(CALL_TIMEOUT, orders.get_opt(&order.name_any())).await??;
    Ok(object.filter(|object| object.uid() == order.uid()).map(|object| parts(&object.data)))
}

fn is_fresh(order: &Order) -> bool {
    let age = order.creation_timestamp().map(|time| Timestamp::now().duration_since(time.0));
    age.is_some_and(|age| age.unsigned_abs() < FRESH)
}

/// What can be read of an order: its spec, or why it cannot; its status, or its
/// conditions alone, or nothing. Without a status billing is asked again, under
/// the same key, and gives the first outcome.
fn parts(data: &Value) -> (Result<OrderSpec, String>, OrderStatus) {
    let spec = serde_json::from_value(data["spec"].clone()).map_err(|error| format!("spec: {error}"));
    let status = serde_json::from_value(data["status"].clone());
    let status = status.unwrap_or_else(|_| match &spec {
        Ok(_) => OrderStatus::default(),
        Err(_) => OrderStatus {
            conditions: serde_json::from_value(data["status"]["conditions"].clone()).unwrap_or_default(),
            ..OrderStatus::default()
        },
    });
    (spec, status)
}

/// Counts and logs what happened.
fn observe(order: &Guarded, happened: &Happened) {
    let (reason, action) = (happened.reason.as_str(), happened.action);
    metrics::counter!("orders_steps_total", "action" => action, "reason" => reason).increment(1);
    tracing::info!(order = order.name_any(), action, reason, note = happened.note);
}

/// Writes the status if the order is still the one that was looked at; false if
/// it is gone.
async fn write_status(order: &Guarded, status: &OrderStatus, client: &Client) -> Result<bool, ReconcileError> {
    let orders: Api<Guarded> = Api::namespaced(client.clone(), &order.namespace().unwrap_or_default());
    let patch = Patch::Merge(status_patch(order.resource_version(), status));
    let (name, params) = (order.name_any(), PatchParams::apply(FIELD_MANAGER));
    match tokio::time::timeout(CALL_TIMEOUT, orders.patch_status(&name, &params, &patch)).await? {
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
    #[cfg(feature = "planted-bugs")]
    if orders_service::planted::is("status-without-version") {
        return json!({ "status": fields });
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
    let conflict = matches!(error, ReconcileError::Kube(kube::Error::Api(status)) if status.is_conflict());
    if conflict {
        // Somebody else changed it; the watch brings the new version.
        return Action::requeue(Duration::from_millis(200));
    }
    metrics::counter!("orders_reconcile_errors_total").increment(1);
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

    #[test]
    fn a_status_that_cannot_be_read_is_forgotten_and_the_spec_kept() {
        let spec = json!({"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "5"});
        let (spec, status) = parts(&json!({"spec": spec, "status": {"balance": "n/a"}}));
        assert!(spec.is_ok());
        assert_eq!(status, OrderStatus::default(), "billing is asked again");
    }

    #[test]
    fn a_spec_that_cannot_be_read_leaves_the_outcome_as_it_was() {
        let paid = json!({"type": "Succeeded", "status": "True", "reason": "Paid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let (spec, status) = parts(&json!({"spec": {"login": 7}, "status": {"balance": "n/a", "conditions": [paid]}}));
        assert!(spec.is_err());
        assert_eq!(status.outcome(), Outcome::Paid);
    }
}
