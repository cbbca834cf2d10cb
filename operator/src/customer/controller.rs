//! Watches the customers, and reconciles each customer that changed or whose balance changed.
//!
//! A balance changes with each order. Writing it to the customer each time would be a third write
//! per order. Therefore the changes are collected for a while. Then the balance is requested from
//! billing.

use std::{collections::HashSet, future::ready, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::{
    Api, ResourceExt,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt,
        controller::{Action, Config as ControllerConfig},
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use orders_service::{kubernetes::WATCH_SECONDS, shutdown::Shutdown};

use super::{
    CustomerGuard,
    context::Customers,
    reconcile::{RETRY_DELAY, reconcile},
};
use crate::{claims::Claims, kube::KubeError};

/// How long changes of balances are collected. A customer's balance is written at most once in this
/// time.
const BALANCE_INTERVAL: Duration = Duration::from_secs(5);

/// The maximum number of customers reconciled at the same time. It is small because orders have
/// priority.
const CONCURRENCY: u16 = 4;

/// Runs until shutdown. At the start each customer is reconciled once, because it may have changed
/// while no operator was running.
pub async fn run(customers: Arc<Customers>, claims: Arc<Claims>, namespace: Option<&str>, shutdown: Shutdown) {
    let api: Api<CustomerGuard> = match namespace {
        Some(namespace) => Api::namespaced(customers.client.clone(), namespace),
        None => Api::all(customers.client.clone()),
    };
    let (store, writer) = reflector::store();
    let changed = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS))
        .default_backoff()
        .try_filter(move |event| claims.includes(event))
        .modify(|customer| customer.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        // Drops the operator's own writes: they change the status, not the generation.
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let balances = changed_balances(customers.clone(), store.clone());
    Controller::for_stream(changed, store)
        .reconcile_on(balances)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown.requested())
        .run(reconcile, retry_later, customers)
        .for_each(|_| ready(()))
        .await;
}

/// The customers whose balance changed: a batch each time that [`BALANCE_INTERVAL`] has passed.
fn changed_balances(context: Arc<Customers>, customers: Store<CustomerGuard>) -> impl Stream<Item = ObjectRef<CustomerGuard>> {
    let batches = stream::unfold((context, customers), async |(context, customers)| {
        tokio::time::sleep(BALANCE_INTERVAL).await;
        let logins = context.take_changed();
        Some((stream::iter(find_by_logins(&logins, &customers)), (context, customers)))
    });
    batches.flatten()
}

/// The customers with these logins.
fn find_by_logins(logins: &HashSet<String>, customers: &Store<CustomerGuard>) -> Vec<ObjectRef<CustomerGuard>> {
    if logins.is_empty() {
        return Vec::new();
    }
    let has_login = |customer: &CustomerGuard| customer.0.as_ref().is_ok_and(|customer| logins.contains(&customer.spec.login));
    customers.state().iter().filter(|customer| has_login(customer)).map(|customer| ObjectRef::from_obj(&**customer)).collect()
}

/// The delay after a status could not be written. The next pass repeats the request to billing,
/// which gives the same reply.
fn retry_later(customer: Arc<CustomerGuard>, error: &KubeError, _: Arc<Customers>) -> Action {
    // A conflict means that another client changed the customer. The watch brings the new version.
    if !error.is_conflict() {
        tracing::warn!(customer = customer.name_any(), %error, "cannot write the customer's status; retrying");
    }
    Action::requeue(RETRY_DELAY)
}
