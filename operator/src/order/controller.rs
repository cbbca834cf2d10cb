//! Watches the orders, and makes a pass over each order that needs one.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use orders_service::{kubernetes::WATCH_SECONDS, shutdown::Shutdown};
use tokio_util::task::AbortOnDropHandle;

use super::{
    context::Context,
    late_replies,
    lifecycle::needs_pass,
    queue,
    reconcile::{Requeue, reconcile},
};
use crate::{
    claims::Claims,
    kube::{KubeError, OrderGuard},
};

/// Reconciles the orders that are this ledger's until shutdown, then finishes the passes in progress.
/// `writer` fills the store that `store` reads.
pub async fn run(
    context: Arc<Context>,
    claims: Arc<Claims>,
    orders: Api<OrderGuard>,
    (store, writer): (Store<OrderGuard>, Writer<OrderGuard>),
    concurrency: u16,
    shutdown: Shutdown,
) {
    let (observer, reader) = (context.clone(), store.clone());
    let changed = watcher(orders, watcher::Config::default().timeout(WATCH_SECONDS))
        .default_backoff()
        .try_filter(move |event| claims.includes(event))
        .reflect(writer)
        .inspect_ok(move |event| {
            observer.echo.observe(event);
            if let watcher::Event::Delete(order) = event {
                observer.settlement.observe_deletion(order);
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "the orders cannot be watched; retrying"))
        .flat_map(move |event| stream::iter(event.map(|event| keys_to_queue(event, &reader)).unwrap_or_default()));
    let (late_replies, keys_with_late_reply) = late_replies::channel();
    let pass = |key: ObjectRef<OrderGuard>| {
        let (order, context, late_replies) = (store.get(&key), context.clone(), late_replies.clone());
        // The pass is a task of its own, so that it runs on the threads that serve its connections.
        let pass = AbortOnDropHandle::new(tokio::spawn(async move {
            let order = order?;
            let requeue = reconcile(&order, &context).await.unwrap_or_else(|error| Some(retry_after(&order, &error)))?;
            if let Some(reply) = requeue.late_reply {
                late_replies.queue_on(reply, key, requeue.after);
            }
            Some(requeue.after)
        }));
        async { pass.await.unwrap_or_else(|error| resume_unwind(error.into_panic())) }
    };
    queue::run(stream::select(changed, keys_with_late_reply), pass, concurrency.into(), shutdown.requested()).await;
    context.settlement.finish_all().await;
}

/// The orders that an event of the watch adds to the queue. Orders that are listed, at the start or
/// after the watch expired, are in the store only when the list is complete. They are added then,
/// the oldest order first.
fn keys_to_queue(event: watcher::Event<OrderGuard>, orders: &Store<OrderGuard>) -> Vec<ObjectRef<OrderGuard>> {
    let now = Timestamp::now();
    match event {
        watcher::Event::Apply(order) if needs_pass(&order, now) => vec![ObjectRef::from(&order)],
        watcher::Event::InitDone => {
            let mut orders = orders.state();
            orders.retain(|order| needs_pass(order, now));
            orders.sort_by_key(|order| order.creation_timestamp());
            orders.iter().map(|order| ObjectRef::from(&**order)).collect()
        }
        watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitApply(_) => Vec::new(),
    }
}

/// The delay before the next pass after a write that failed. The order is unchanged, so the next
/// pass repeats all requests under the same keys.
fn retry_after(order: &OrderGuard, error: &KubeError) -> Requeue {
    if error.is_conflict() {
        // Another client changed the order. The watch brings the new version.
        return Requeue { after: Duration::from_millis(200), late_reply: None };
    }
    metrics::counter!("orders_reconcile_errors_total").increment(1);
    tracing::warn!(order = order.name_any(), %error, "the pass over the order failed; retrying");
    Requeue { after: Duration::from_secs(1), late_reply: None }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use orders_crds::{Order, OrderSpec};

    use super::*;

    fn order(name: &str, second: i64) -> OrderGuard {
        let mut order = Order::new(name, OrderSpec::default());
        order.metadata.namespace = Some("shop".to_owned());
        order.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        OrderGuard(Ok(order))
    }

    #[tokio::test]
    async fn an_order_created_while_the_watch_was_down_is_queued_once_it_is_in_the_store() {
        use watcher::Event::{Apply, Init, InitApply, InitDone};
        let (store, writer) = kube::runtime::reflector::store();
        let events = [
            Init,
            InitApply(order("a", 1)),
            InitDone,
            Apply(order("b", 2)),
            Init,
            InitApply(order("d", 4)),
            InitApply(order("c", 3)),
            InitDone,
        ];
        let events = stream::iter(events.map(Ok::<_, watcher::Error>)).reflect(writer);
        let keys = events.flat_map(|event| stream::iter(keys_to_queue(event.unwrap(), &store)));
        let queued: Vec<_> = keys.map(|key| (key.name.clone(), store.get(&key).is_some())).collect().await;
        let names: Vec<&str> = queued.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a", "b", "c", "d"], "the oldest order comes first");
        assert!(queued.iter().all(|(_, is_stored)| *is_stored), "{queued:?}");
    }
}
