//! The controller: for each order, decide, carry out, write the status once.

use std::{future::pending, panic::resume_unwind, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use orders_crds::{Order, OrderSpec, OrderStatus, Outcome, RetryStep};
use orders_service::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    carry_out::carry_out,
    clients::{Billing, News, Notify},
    customers::Customers,
    decide::{Step, decide},
    deletion::{self, Deletion, has_finalizer, needs_finalizer},
    events::{Happened, Publisher},
    guarded::Guarded,
    late::{self, LateAnswer},
    purchase::Purchase,
    queue,
    retention::Retention,
    status::Progress,
    wanted::Wanted,
    watched::Watched,
};

/// How long one call to the Kubernetes API may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// An order that is older than this when it is first seen may be gone by now:
/// before it is charged the API server is asked. One that is seen at once is
/// not, which would cost every order a request.
const FRESH: Duration = Duration::from_secs(2);

/// Field manager of the status.
pub(crate) const FIELD_MANAGER: &str = "orders-operator";

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
    /// What passes wait for.
    pub watched: Watched,
    /// Sees to the charges of orders that are gone.
    pub deletion: Deletion,
    /// Shows balances.
    pub customers: Arc<Customers>,
    /// Archives and removes what is finished, if there is an archive.
    pub retention: Option<Retention>,
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
    let deletion = context.deletion.clone();
    let seen = context.clone();
    let (store, writer) = reflector::store();
    let listed = store.clone();
    let unfinished = watcher(orders, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .inspect_ok(move |event| {
            seen.watched.saw(event);
            if let watcher::Event::Delete(order) = event {
                seen.deletion.saw(order, &seen);
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "the orders cannot be watched; trying again"))
        .flat_map(move |event| stream::iter(event.map(|event| unfinished(event, &listed)).unwrap_or_default()));
    let retained = retain(context.retention.as_ref(), store.clone());
    let (answered, answered_late) = late::answered();
    let pass = |key: ObjectRef<Guarded>| {
        let (order, context, answered) = (store.get(&key), context.clone(), answered.clone());
        // A task of its own, so that it goes on where its connections are served.
        let pass = AbortOnDropHandle::new(tokio::spawn(async move {
            let order = order?;
            let again = reconcile(&order, &context).await.unwrap_or_else(|error| Some(retry_after(&order, &error)))?;
            if let Some(answer) = again.late {
                answered.bring(key, answer, again.after);
            }
            Some(again.after)
        }));
        async { pass.await.unwrap_or_else(|error| resume_unwind(error.into_panic())) }
    };
    let work = queue::run(stream::select(unfinished, answered_late), pass, concurrency.into(), shutdown.clone().requested());
    tokio::select! {
        () = async { work.await; deletion.finish().await } => {}
        () = retained => {}
        () = shutdown.out_of_time() => tracing::warn!("stopped with orders under way; the next leader goes on with them"),
    }
}

/// Archives and removes, if there is an archive; never ends.
async fn retain(retention: Option<&Retention>, orders: reflector::Store<Guarded>) {
    match retention {
        Some(retention) => retention.run(orders).await,
        None => pending().await,
    }
}

/// The orders that have something left to do, of those that an event of the watch is about. What is
/// listed, at the start or after the watch expired, is in the store only when all of it has come:
/// who has waited longest comes first then.
fn unfinished(event: watcher::Event<Guarded>, orders: &reflector::Store<Guarded>) -> Vec<ObjectRef<Guarded>> {
    match event {
        watcher::Event::Apply(order) if needs_work(&order) => vec![ObjectRef::from(&order)],
        watcher::Event::InitDone => {
            let mut orders = orders.state();
            orders.retain(|order| needs_work(order));
            orders.sort_by_key(|order| order.creation_timestamp());
            orders.iter().map(|order| ObjectRef::from(&**order)).collect()
        }
        _ => Vec::new(),
    }
}

fn needs_work(order: &Guarded) -> bool {
    let Ok(readable) = &order.0 else { return true };
    let none = OrderStatus::default();
    let status = readable.status.as_ref().unwrap_or(&none);
    let wanted = Wanted::of(&readable.metadata, Some(&readable.spec), status);
    decide(status, &wanted, Timestamp::now()) != Step::Done || has_finalizer(order) != needs_finalizer(order, status)
}

/// When an order wants another pass, if it does not change before.
struct Again {
    after: Duration,
    /// Sooner, if what was asked for is answered after all.
    late: Option<LateAnswer>,
}

/// A pass over an order; whether it wants another.
async fn reconcile(order: &Arc<Guarded>, context: &Arc<Context>) -> Result<Option<Again>, ReconcileError> {
    if !needs_work(order) {
        return Ok(None);
    }
    let Some(Read { spec, status: before }) = read(order, &context.client).await? else { return Ok(None) };
    let uid = order.uid().unwrap_or_default();
    let wanted = Wanted::of(order.meta(), spec.as_ref().ok(), &before);
    let mut progress = Progress::new(before.clone(), order.meta().generation);
    let mut purchase = spec.and_then(|spec| Purchase::read(&uid, before.attempt(), &spec).map_err(|error| error.to_string()));
    let go_on = match &mut purchase {
        Ok(purchase) => {
            if late_answer(&before, purchase, context).and_then(FutureExt::now_or_never) == Some(true) {
                progress.answered_late(Timestamp::now());
            }
            carry_out(&uid, purchase, &wanted, &mut progress, &*context.billing, &*context.notify).await
        }
        // What was decided stays decided, whatever can be read of it now.
        Err(problem) if before.outcome() != Outcome::Undecided => {
            tracing::warn!(order = order.name_any(), problem, "a decided order cannot be read any more");
            None
        }
        Err(problem) => {
            progress.invalid(problem, Timestamp::now());
            None
        }
    };
    let late = purchase.as_ref().ok().and_then(|purchase| late_answer(&progress.status, purchase, context));
    let mut version = order.resource_version();
    if progress.status != before {
        let change = context.watched.next_of(order);
        match write_status(order, &progress.status, &context.client).await? {
            Written::As(new) => version = new,
            Written::Gone => {
                context.deletion.settle_if_open(order, purchase.ok(), &before, progress, context);
                return Ok(None);
            }
        }
        if progress.status.balance != before.balance
            && let Ok(purchase) = &purchase
        {
            context.customers.balance_changed(purchase.login.as_ref());
        }
        progress.story.iter().for_each(|happened| observe(order, happened));
        change.came().await;
        context.events.publish(&progress.story, &order.object_ref(&())).await;
    }
    let needed = needs_finalizer(order, &progress.status) && !deletion::is_overdue(order);
    if has_finalizer(order) != needed {
        match deletion::set_finalizer(order, version, needed, &context.client).await? {
            Written::As(_) => {}
            Written::Gone => {
                context.deletion.settle_if_open(order, purchase.ok(), &before, progress, context);
                return Ok(None);
            }
        }
    }
    Ok(go_on.map(|until| Again { after: pause_until(until), late }))
}

/// The answer that an order waits for, if it may come late.
fn late_answer(status: &OrderStatus, purchase: &Purchase, context: &Context) -> Option<LateAnswer> {
    match status.retry.as_ref()?.step {
        RetryStep::Notification => context.notify.late(purchase, &News::of(status)),
        step => context.billing.late(step, purchase),
    }
}

/// What could be read of an order: its spec, or why it cannot be; its status.
struct Read {
    spec: Result<OrderSpec, String>,
    status: OrderStatus,
}

/// The order as it is; `None` if it is gone, or another one has its name. What may
/// be out of date is asked for anew. One that cannot be read as a whole is looked
/// at part by part: a status that cannot be read must not turn into a refusal of
/// what may be paid already.
async fn read(order: &Guarded, client: &Client) -> Result<Option<Read>, ReconcileError> {
    match &order.0 {
        Ok(order) if order.status.is_some() || is_fresh(order) => {
            return Ok(Some(Read { spec: Ok(order.spec.clone()), status: order.status.clone().unwrap_or_default() }));
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
fn parts(data: &Value) -> Read {
    let spec = serde_json::from_value(data["spec"].clone()).map_err(|error| format!("spec: {error}"));
    let status = serde_json::from_value(data["status"].clone());
    let status = status.unwrap_or_else(|_| match &spec {
        Ok(_) => OrderStatus::default(),
        Err(_) => OrderStatus {
            conditions: serde_json::from_value(data["status"]["conditions"].clone()).unwrap_or_default(),
            ..OrderStatus::default()
        },
    });
    Read { spec, status }
}

/// Counts and logs what happened.
fn observe(order: &Guarded, happened: &Happened) {
    let (reason, action) = (happened.reason.as_str(), happened.action);
    metrics::counter!("orders_steps_total", "action" => action, "reason" => reason).increment(1);
    tracing::info!(order = order.name_any(), action, reason, note = happened.note);
}

/// What became of a write to an order.
pub(crate) enum Written {
    /// It has this version now.
    As(Option<String>),
    /// It is gone, or another one has its name.
    Gone,
}

/// Writes the status if the order is still the one that was looked at.
async fn write_status(order: &Guarded, status: &OrderStatus, client: &Client) -> Result<Written, ReconcileError> {
    let orders: Api<Guarded> = Api::namespaced(client.clone(), &order.namespace().unwrap_or_default());
    let patch = Patch::Merge(status_patch(order.resource_version(), status));
    let (name, params) = (order.name_any(), PatchParams::apply(FIELD_MANAGER));
    written(order, &orders, tokio::time::timeout(CALL_TIMEOUT, orders.patch_status(&name, &params, &patch)).await?).await
}

/// Reads the result of a write. After a conflict it is looked up whether the order
/// is still there: if it is not, nobody else will see to its charge.
pub(crate) async fn written(
    order: &Guarded,
    orders: &Api<Guarded>,
    result: kube::Result<Guarded>,
) -> Result<Written, ReconcileError> {
    match result {
        Ok(new) => Ok(Written::As(new.resource_version())),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            tracing::info!(order = order.name_any(), "the order was deleted meanwhile");
            Ok(Written::Gone)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            let now = tokio::time::timeout(CALL_TIMEOUT, orders.get_opt(&order.name_any())).await??;
            if now.is_some_and(|now| now.uid() == order.uid()) { Err(kube::Error::Api(status).into()) } else { Ok(Written::Gone) }
        }
        Err(error) => Err(error.into()),
    }
}

/// A merge patch (RFC 7396) that applies only to the version that was read;
/// fields that the status has no more are removed by null.
fn status_patch(resource_version: Option<String>, status: &OrderStatus) -> Value {
    let mut fields = json!({ "balance": null, "charge": null, "refunded": null, "resends": null, "retry": null });
    if let (Value::Object(fields), Ok(Value::Object(set))) = (&mut fields, serde_json::to_value(status)) {
        fields.extend(set);
    }
    #[cfg(debug_assertions)]
    if orders_service::seeded_bugs::is_on("status-without-version") {
        return json!({ "status": fields });
    }
    json!({ "metadata": { "resourceVersion": resource_version }, "status": fields })
}

fn pause_until(time: Timestamp) -> Duration {
    let delay = time.duration_since(Timestamp::now());
    // Never at once: a clock that is off must not make this spin.
    Duration::try_from(delay).unwrap_or_default().max(Duration::from_millis(50))
}

/// A status that could not be written. The order is unchanged, so everything is
/// asked again, under the same keys, after so long.
fn retry_after(order: &Guarded, error: &ReconcileError) -> Again {
    let conflict = matches!(error, ReconcileError::Kube(kube::Error::Api(status)) if status.is_conflict());
    if conflict {
        // Somebody else changed it; the watch brings the new version.
        return Again { after: Duration::from_millis(200), late: None };
    }
    metrics::counter!("orders_reconcile_errors_total").increment(1);
    tracing::warn!(order = order.name_any(), %error, "order not brought forward; trying again");
    Again { after: Duration::from_secs(1), late: None }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn created(name: &str, second: i64) -> Guarded {
        let mut order = Order::new(name, OrderSpec::default());
        order.metadata.namespace = Some("shop".to_owned());
        order.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        Guarded(Ok(order))
    }

    #[tokio::test]
    async fn what_was_created_while_the_watch_was_away_has_its_turn_and_is_in_the_store_by_then() {
        use watcher::Event::{Apply, Init, InitApply, InitDone};
        let (store, writer) = reflector::store();
        let events = [
            Init,
            InitApply(created("a", 1)),
            InitDone,
            Apply(created("b", 2)),
            Init,
            InitApply(created("d", 4)),
            InitApply(created("c", 3)),
            InitDone,
        ];
        let events = stream::iter(events.map(Ok::<_, watcher::Error>)).reflect(writer);
        let turns = events.flat_map(|event| stream::iter(unfinished(event.unwrap(), &store)));
        let turns: Vec<_> = turns.map(|order| (order.name.clone(), store.get(&order).is_some())).collect().await;
        let names: Vec<&str> = turns.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a", "b", "c", "d"], "who has waited longest comes first");
        assert!(turns.iter().all(|(_, is_stored)| *is_stored), "{turns:?}");
    }

    #[test]
    fn a_status_patch_removes_what_is_no_more() {
        let patch = status_patch(Some("7".into()), &OrderStatus::default());
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["status"], json!({ "balance": null, "charge": null, "refunded": null, "resends": null, "retry": null }));
    }

    #[test]
    fn a_status_that_cannot_be_read_is_forgotten_and_the_spec_kept() {
        let spec = json!({"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "5"});
        let Read { spec, status } = parts(&json!({"spec": spec, "status": {"balance": "n/a"}}));
        assert!(spec.is_ok());
        assert_eq!(status, OrderStatus::default(), "billing is asked again");
    }

    #[test]
    fn a_spec_that_cannot_be_read_leaves_the_outcome_as_it_was() {
        let paid = json!({"type": "Succeeded", "status": "True", "reason": "Paid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let Read { spec, status } = parts(&json!({"spec": {"login": 7}, "status": {"balance": "n/a", "conditions": [paid]}}));
        assert!(spec.is_err());
        assert_eq!(status.outcome(), Outcome::Paid);
    }
}
