//! One pass over a customer: opens the billing account and writes the status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use orders_contracts::billing::OpenAccount;
use orders_crds::{ConditionType, Customer, CustomerStatus, Login, Reason, conditions};
use serde_json::json;

use super::{CustomerGuard, context::Customers};
use crate::{
    kube::{CALL_TIMEOUT, FIELD_MANAGER, KubeError, events::OrderEvent},
    ports::UnknownResult,
};

/// The delay before a request whose result is unknown, or a write that failed, is repeated.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Opens the billing account of a customer, and writes its status if that changes.
///
/// # Errors
/// [`KubeError`]. The next pass repeats the request to billing, which gives the same reply.
pub async fn reconcile(guard: Arc<CustomerGuard>, customers: Arc<Customers>) -> Result<Action, KubeError> {
    let name = guard.name_any();
    let (customer, login) = match read(&guard) {
        Ok(customer_and_login) => customer_and_login,
        // The CRD refuses such a customer. A customer that was stored under older rules stays as it is.
        Err(error) => {
            tracing::warn!(customer = name, error, "the customer cannot be read");
            return Ok(Action::await_change());
        }
    };
    let reply = customers.accounts.open(&login, &customer.uid().unwrap_or_default()).await;
    if let Err(error) = &reply {
        tracing::warn!(customer = name, %error, "cannot open the account; retrying");
    }
    let action = if reply.is_ok() { Action::await_change() } else { Action::requeue(RETRY_DELAY) };
    let before = customer.status.clone().unwrap_or_default();
    let (status, events) = next_status(&before, customer.metadata.generation, &login, reply, Timestamp::now());
    if status != before {
        if !write(customer, &status, &customers.client).await? {
            return Ok(Action::await_change());
        }
        customers.events.publish(&events, &customer.object_ref(&())).await;
    }
    Ok(action)
}

fn read(guard: &CustomerGuard) -> Result<(&Customer, Login), String> {
    let customer = guard.0.as_ref().map_err(ToString::to_string)?;
    let login = Login::try_from(customer.spec.login.clone()).map_err(|error| error.to_string())?;
    Ok((customer, login))
}

/// Returns the status after billing's reply, and the events to publish.
fn next_status(
    before: &CustomerStatus,
    generation: Option<i64>,
    login: &Login,
    reply: Result<OpenAccount, UnknownResult>,
    now: Timestamp,
) -> (CustomerStatus, Vec<OrderEvent>) {
    let mut status = CustomerStatus { observed_generation: generation, ..before.clone() };
    let (is_open, reason, message, event) = match reply {
        Ok(account) => {
            let (reason, message) = match account.opened {
                true => (Reason::Opened, format!("Opened the account {login}.")),
                false => (Reason::AlreadyOpen, format!("The account {login} already existed; its balance is unchanged.")),
            };
            status.balance = Some(account.balance);
            (Some(true), reason, message.clone(), OrderEvent::normal(reason, "Open", message))
        }
        // An account that was opened stays open, even if billing is unavailable now.
        Err(_) if before.is_account_open() => return (before.clone(), Vec::new()),
        Err(UnknownResult(error)) => {
            let message = "Billing is unavailable; the request is retried.".to_owned();
            let event = OrderEvent::warning(Reason::BillingUnavailable, "Open", format!("{message} {error}"));
            (None, Reason::BillingUnavailable, message, event)
        }
    };
    let previous = conditions::find(&before.conditions, ConditionType::AccountOpened);
    let is_new_reason = previous.is_none_or(|condition| condition.reason != reason.as_str());
    conditions::set(&mut status.conditions, ConditionType::AccountOpened, is_open, reason, message, generation, now);
    (status, if is_new_reason { vec![event] } else { Vec::new() })
}

/// Writes the status if the customer still has the resource version that was read. Returns `false`
/// if the customer no longer exists.
async fn write(customer: &Customer, status: &CustomerStatus, client: &Client) -> Result<bool, KubeError> {
    let api: Api<Customer> = Api::namespaced(client.clone(), &customer.namespace().unwrap_or_default());
    // The operator never removes a field of this status, so the merge patch needs no nulls.
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

    fn after(before: &CustomerStatus, reply: Result<&str, &str>) -> (CustomerStatus, Vec<OrderEvent>) {
        let reply = reply.map(|body| serde_json::from_str(body).unwrap()).map_err(|error| UnknownResult(error.to_owned()));
        next_status(before, Some(1), &login(), reply, Timestamp::UNIX_EPOCH)
    }

    fn reason(status: &CustomerStatus) -> &str {
        &conditions::find(&status.conditions, ConditionType::AccountOpened).unwrap().reason
    }

    #[test]
    fn an_account_is_opened_once_and_its_balance_is_updated() {
        let (waiting, events) = after(&CustomerStatus::default(), Err("timeout"));
        assert_eq!((reason(&waiting), waiting.is_account_open(), events.len()), ("BillingUnavailable", false, 1));
        assert_eq!(after(&waiting, Err("another timeout")), (waiting.clone(), Vec::new()), "nothing to write each time");

        let (open, events) = after(&waiting, Ok(r#"{"login":"anna","balance":0,"opened":true}"#));
        assert_eq!((reason(&open), open.is_account_open(), events.len()), ("Opened", true, 1));
        let (charged, events) = after(&open, Ok(r#"{"login":"anna","balance":12.5,"opened":true}"#));
        assert_eq!(charged.balance.map(|balance| balance.minor()), Some(1250));
        assert!(events.is_empty(), "a changed balance is no event");
        assert_eq!(after(&charged, Err("timeout")), (charged.clone(), Vec::new()), "an open account stays open");
    }

    #[test]
    fn an_account_that_already_existed_keeps_its_balance() {
        let (status, _) = after(&CustomerStatus::default(), Ok(r#"{"login":"anna","balance":7,"opened":false}"#));
        assert_eq!((reason(&status), status.is_account_open()), ("AlreadyOpen", true));
        assert_eq!(status.balance.map(|balance| balance.minor()), Some(700));
    }
}
