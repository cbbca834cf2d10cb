//! Customers: each gets its billing account, and shows the account's balance.
//!
//! A balance changes with each order. Writing it into the customer each time would
//! be a third write an order, so changes are collected for a while, and billing is
//! asked for the balance as it is then.

use std::{
    collections::HashSet,
    future::ready,
    mem::take,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt,
        controller::{Action, Config as ControllerConfig},
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use orders_crds::{ConditionType, Customer, CustomerStatus, Login, Reason, conditions};
use orders_service::shutdown::Shutdown;
use serde_json::json;

use crate::{
    clients::{
        NoAnswer,
        accounts::{Account, Accounts},
    },
    controller::{CALL_TIMEOUT, FIELD_MANAGER, ReconcileError},
    events::{Happened, Publisher},
};

/// A customer as it comes: one that cannot be read must not stop the others.
type Guarded = DeserializeGuard<Customer>;

/// How long changes of balances are collected: a customer is written so often at most.
const COLLECTED: Duration = Duration::from_secs(5);

/// Until billing is asked again that did not answer, or a write is tried again that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Customers worked on at once: few, since orders come first.
const CONCURRENCY: u16 = 4;

/// Looks after customers.
pub struct Customers {
    client: Client,
    accounts: Accounts,
    events: Publisher,
    changed: Mutex<HashSet<String>>,
}

impl Customers {
    /// Their accounts are in this billing service.
    pub fn new(client: Client, accounts: Accounts, events: Publisher) -> Arc<Self> {
        Arc::new(Customers { client, accounts, events, changed: Mutex::default() })
    }

    /// Notes that the balance of this login's account changed.
    pub fn balance_changed(&self, login: &str) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(login.to_owned());
    }

    /// Runs until shutdown. Each customer is looked at once at the start, for what changed unseen.
    pub async fn run(self: Arc<Self>, namespace: Option<&str>, shutdown: Shutdown) {
        let customers: Api<Guarded> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let (store, writer) = reflector::store();
        let changed = watcher(customers, watcher::Config::default())
            .default_backoff()
            .modify(|customer| customer.managed_fields_mut().clear())
            .reflect(writer)
            .applied_objects()
            // Not what this operator writes itself.
            .predicate_filter(predicates::generation, PredicateConfig::default());
        let balances = self.clone().changed(store.clone());
        Controller::for_stream(changed, store)
            .reconcile_on(balances)
            .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
            .graceful_shutdown_on(shutdown.requested())
            .run(reconcile, retry_later, self)
            .for_each(|_| ready(()))
            .await;
    }

    /// The customers whose balance changed, every now and then.
    fn changed(self: Arc<Self>, customers: Store<Guarded>) -> impl Stream<Item = ObjectRef<Guarded>> + use<> {
        let rounds = stream::unfold((self, customers), async |(this, customers)| {
            tokio::time::sleep(COLLECTED).await;
            let logins = take(&mut *this.changed.lock().unwrap_or_else(PoisonError::into_inner));
            Some((stream::iter(of_logins(&logins, &customers)), (this, customers)))
        });
        rounds.flatten()
    }
}

fn of_logins(logins: &HashSet<String>, customers: &Store<Guarded>) -> Vec<ObjectRef<Guarded>> {
    if logins.is_empty() {
        return Vec::new();
    }
    let is_of = |customer: &Guarded| customer.0.as_ref().is_ok_and(|customer| logins.contains(&customer.spec.login));
    customers.state().iter().filter(|customer| is_of(customer)).map(|customer| ObjectRef::from_obj(&**customer)).collect()
}

async fn reconcile(guarded: Arc<Guarded>, customers: Arc<Customers>) -> Result<Action, ReconcileError> {
    let name = guarded.name_any();
    let (customer, login) = match read(&guarded) {
        Ok(read) => read,
        // The CRD lets none in; one that was stored before it did stays as it is.
        Err(error) => {
            tracing::warn!(customer = name, error, "a customer cannot be read");
            return Ok(Action::await_change());
        }
    };
    let answer = customers.accounts.open(&login, &customer.uid().unwrap_or_default()).await;
    if let Err(error) = &answer {
        tracing::warn!(customer = name, %error, "the account is not known; trying again");
    }
    let go_on = if answer.is_ok() { Action::await_change() } else { Action::requeue(PAUSE) };
    let before = customer.status.clone().unwrap_or_default();
    let (status, happened) = told(&before, customer.metadata.generation, &login, answer, Timestamp::now());
    if status != before {
        if !write(customer, &status, &customers.client).await? {
            return Ok(Action::await_change());
        }
        customers.events.publish(&happened, &customer.object_ref(&())).await;
    }
    Ok(go_on)
}

/// A status that could not be written: billing is asked again, and says the same.
fn retry_later(customer: Arc<Guarded>, error: &ReconcileError, _: Arc<Customers>) -> Action {
    // A conflict is somebody's change, which the watch brings.
    if !matches!(error, ReconcileError::Kube(kube::Error::Api(status)) if status.is_conflict()) {
        tracing::warn!(customer = customer.name_any(), %error, "the account is not shown; trying again");
    }
    Action::requeue(PAUSE)
}

fn read(guarded: &Guarded) -> Result<(&Customer, Login), String> {
    let customer = guarded.0.as_ref().map_err(ToString::to_string)?;
    let login = Login::try_from(customer.spec.login.clone()).map_err(|error| error.to_string())?;
    Ok((customer, login))
}

/// What the status is after billing's answer, and what is worth an Event.
fn told(
    before: &CustomerStatus,
    generation: Option<i64>,
    login: &Login,
    answer: Result<Account, NoAnswer>,
    now: Timestamp,
) -> (CustomerStatus, Vec<Happened>) {
    let mut status = CustomerStatus { observed_generation: generation, ..before.clone() };
    let (is_open, reason, message, happened) = match answer {
        Ok(account) => {
            let (reason, message) = match account.opened {
                true => (Reason::Opened, format!("Opened the account {login}.")),
                false => (Reason::AlreadyOpen, format!("There was an account {login} before; its balance is unchanged.")),
            };
            status.balance = Some(account.balance);
            (Some(true), reason, message.clone(), Happened::normal(reason, "Open", message))
        }
        // The account stays open, whoever does not answer.
        Err(_) if before.is_account_open() => return (before.clone(), Vec::new()),
        Err(NoAnswer(error)) => {
            let message = "Billing does not answer; it is asked again.".to_owned();
            let happened = Happened::warning(Reason::BillingUnavailable, "Open", format!("{message} {error}"));
            (None, Reason::BillingUnavailable, message, happened)
        }
    };
    let known = conditions::find(&before.conditions, ConditionType::AccountOpened);
    let news = known.is_none_or(|condition| condition.reason != reason.as_str());
    conditions::set(&mut status.conditions, ConditionType::AccountOpened, is_open, reason, message, generation, now);
    (status, if news { vec![happened] } else { Vec::new() })
}

/// Writes the status if the customer is still the one that was looked at; whether it is.
async fn write(customer: &Customer, status: &CustomerStatus, client: &Client) -> Result<bool, ReconcileError> {
    let api: Api<Customer> = Api::namespaced(client.clone(), &customer.namespace().unwrap_or_default());
    // Nothing in it is ever unset, so what is not named need not be.
    let patch = json!({ "metadata": { "resourceVersion": customer.resource_version() }, "status": status });
    let (name, params) = (customer.name_any(), PatchParams::apply(FIELD_MANAGER));
    match tokio::time::timeout(CALL_TIMEOUT, api.patch_status(&name, &params, &Patch::Merge(patch))).await? {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(refused)) if refused.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login::try_from("anna".to_owned()).unwrap()
    }

    fn after(before: &CustomerStatus, answer: Result<&str, &str>) -> (CustomerStatus, Vec<Happened>) {
        let answer = answer.map(|body| serde_json::from_str(body).unwrap()).map_err(|error| NoAnswer(error.to_owned()));
        told(before, Some(1), &login(), answer, Timestamp::UNIX_EPOCH)
    }

    fn reason(status: &CustomerStatus) -> &str {
        &conditions::find(&status.conditions, ConditionType::AccountOpened).unwrap().reason
    }

    #[test]
    fn an_account_is_opened_once_and_its_balance_followed() {
        let (waiting, story) = after(&CustomerStatus::default(), Err("away"));
        assert_eq!((reason(&waiting), waiting.is_account_open(), story.len()), ("BillingUnavailable", false, 1));
        assert_eq!(after(&waiting, Err("still away")), (waiting.clone(), Vec::new()), "nothing to write each time");

        let (open, story) = after(&waiting, Ok(r#"{"login":"anna","balance":0,"opened":true}"#));
        assert_eq!((reason(&open), open.is_account_open(), story.len()), ("Opened", true, 1));
        let (charged, story) = after(&open, Ok(r#"{"login":"anna","balance":12.5,"opened":true}"#));
        assert_eq!(charged.balance.map(|balance| balance.minor()), Some(1250));
        assert!(story.is_empty(), "a balance is no event");
        assert_eq!(after(&charged, Err("away")), (charged.clone(), Vec::new()), "an open account stays open");
    }

    #[test]
    fn an_account_that_was_there_keeps_its_money() {
        let (status, _) = after(&CustomerStatus::default(), Ok(r#"{"login":"anna","balance":7,"opened":false}"#));
        assert_eq!((reason(&status), status.is_account_open()), ("AlreadyOpen", true));
        assert_eq!(status.balance.map(|balance| balance.minor()), Some(700));
    }
}
