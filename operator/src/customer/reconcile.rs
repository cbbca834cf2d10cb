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
    ports::NoAnswer,
};

/// The delay before a request that billing did not answer, or a write that failed, is repeated.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// Opens the billing account of a customer, and writes its status if that changes.
///
/// # Errors
/// [`KubeError`]. The next pass repeats the request to billing, which gives the same answer.
pub async fn reconcile(guarded: Arc<CustomerGuard>, customers: Arc<Customers>) -> Result<Action, KubeError> {
    let name = guarded.name_any();
    let (customer, login) = match read(&guarded) {
        Ok(read) => read,
        // The CRD refuses such a customer. A customer that was stored under older rules stays as it is.
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
    let (status, happened) = status_after(&before, customer.metadata.generation, &login, answer, Timestamp::now());
    if status != before {
        if !write(customer, &status, &customers.client).await? {
            return Ok(Action::await_change());
        }
        customers.events.publish(&happened, &customer.object_ref(&())).await;
    }
    Ok(go_on)
}

fn read(guarded: &CustomerGuard) -> Result<(&Customer, Login), String> {
    let customer = guarded.0.as_ref().map_err(ToString::to_string)?;
    let login = Login::try_from(customer.spec.login.clone()).map_err(|error| error.to_string())?;
    Ok((customer, login))
}

/// Returns the status after billing's answer, and the events to publish.
fn status_after(
    before: &CustomerStatus,
    generation: Option<i64>,
    login: &Login,
    answer: Result<OpenAccount, NoAnswer>,
    now: Timestamp,
) -> (CustomerStatus, Vec<OrderEvent>) {
    let mut status = CustomerStatus { observed_generation: generation, ..before.clone() };
    let (is_open, reason, message, happened) = match answer {
        Ok(account) => {
            let (reason, message) = match account.opened {
                true => (Reason::Opened, format!("Opened the account {login}.")),
                false => (Reason::AlreadyOpen, format!("There was an account {login} before; its balance is unchanged.")),
            };
            status.balance = Some(account.balance);
            (Some(true), reason, message.clone(), OrderEvent::normal(reason, "Open", message))
        }
        // An account that was opened stays open, even if billing does not answer now.
        Err(_) if before.is_account_open() => return (before.clone(), Vec::new()),
        Err(NoAnswer(error)) => {
            let message = "Billing does not answer; it is asked again.".to_owned();
            let happened = OrderEvent::warning(Reason::BillingUnavailable, "Open", format!("{message} {error}"));
            (None, Reason::BillingUnavailable, message, happened)
        }
    };
    let known = conditions::find(&before.conditions, ConditionType::AccountOpened);
    let news = known.is_none_or(|condition| condition.reason != reason.as_str());
    conditions::set(&mut status.conditions, ConditionType::AccountOpened, is_open, reason, message, generation, now);
    (status, if news { vec![happened] } else { Vec::new() })
}

/// Writes the status if the customer still has the resource version that was read. Returns `false`
/// if the customer is gone.
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

    fn after(before: &CustomerStatus, answer: Result<&str, &str>) -> (CustomerStatus, Vec<OrderEvent>) {
        let answer = answer.map(|body| serde_json::from_str(body).unwrap()).map_err(|error| NoAnswer(error.to_owned()));
        status_after(before, Some(1), &login(), answer, Timestamp::UNIX_EPOCH)
    }

    fn reason(status: &CustomerStatus) -> &str {
        &conditions::find(&status.conditions, ConditionType::AccountOpened).unwrap().reason
    }

    #[test]
    fn an_account_is_opened_once_and_its_balance_followed() {
        let (waiting, events) = after(&CustomerStatus::default(), Err("away"));
        assert_eq!((reason(&waiting), waiting.is_account_open(), events.len()), ("BillingUnavailable", false, 1));
        assert_eq!(after(&waiting, Err("still away")), (waiting.clone(), Vec::new()), "nothing to write each time");

        let (open, events) = after(&waiting, Ok(r#"{"login":"anna","balance":0,"opened":true}"#));
        assert_eq!((reason(&open), open.is_account_open(), events.len()), ("Opened", true, 1));
        let (charged, events) = after(&open, Ok(r#"{"login":"anna","balance":12.5,"opened":true}"#));
        assert_eq!(charged.balance.map(|balance| balance.minor()), Some(1250));
        assert!(events.is_empty(), "a balance is no event");
        assert_eq!(after(&charged, Err("away")), (charged.clone(), Vec::new()), "an open account stays open");
    }

    #[test]
    fn an_account_that_was_there_keeps_its_money() {
        let (status, _) = after(&CustomerStatus::default(), Ok(r#"{"login":"anna","balance":7,"opened":false}"#));
        assert_eq!((reason(&status), status.is_account_open()), ("AlreadyOpen", true));
        assert_eq!(status.balance.map(|balance| balance.minor()), Some(700));
    }
}
