//! `kubectl orders stuck`: lists the orders of which a step failed and is tried again.
//!
//! The status of a resource has the error of the step, which can name internals. The public API does not show
//! it, so this command reads the resources.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{Api, ResourceExt, api::ListParams, core::DeserializeGuard};
use orders_crds::{Order, Retry};

use crate::{
    access::{KubeconfigError, connect, error_message},
    age::format_age,
    arguments::{AccessArgs, AllNamespaces, PrintArgs},
    output::Printer,
};

/// The number of orders in one response of Kubernetes.
const PAGE_SIZE: u32 = 500;

/// The reason why the orders could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum StuckError {
    /// The command line selects the API by its URL, so Kubernetes is not reached.
    #[error("the errors of steps are in Kubernetes, and the API does not show them: do not set --server or ORDERS_SERVER")]
    ServerOption,
    /// Kubernetes cannot be reached.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// Kubernetes refused the request, or did not respond.
    #[error("the orders cannot be listed: {0}")]
    Kubernetes(String),
}

/// Lists the stuck orders as text, the one that failed most often first.
///
/// # Errors
/// [`StuckError`].
pub async fn list(access: &AccessArgs, print: &PrintArgs, all: &AllNamespaces) -> Result<String, StuckError> {
    if access.server.is_some() {
        return Err(StuckError::ServerOption);
    }
    let (client, namespace) = connect(access).await?;
    let orders: Api<DeserializeGuard<Order>> =
        if all.all_namespaces { Api::all(client) } else { Api::namespaced(client, &namespace) };
    let mut stuck = Vec::new();
    let mut page = ListParams::default().limit(PAGE_SIZE);
    loop {
        let listed = tokio::time::timeout(access.timeout(), orders.list(&page)).await;
        let listed = listed.map_err(|_| StuckError::Kubernetes("no response in time; see --request-timeout".to_owned()))?;
        let listed = listed.map_err(|error| StuckError::Kubernetes(error_message(error)))?;
        // An order that this version cannot read is the operator's to report.
        stuck.extend(listed.items.into_iter().filter_map(|order| order.0.ok()).filter(|order| retry(order).is_some()));
        page.continue_token = listed.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            break;
        }
    }
    stuck.sort_by_key(|order| std::cmp::Reverse(retry(order).map(|retry| retry.attempts)));
    Ok(Printer::new(print).format_stuck(&stuck, all.all_namespaces, Timestamp::now()))
}

fn retry(order: &Order) -> Option<&Retry> {
    order.status.as_ref()?.retry.as_ref()
}

/// The headers of the table, without the namespace.
pub(crate) const HEADERS: [&str; 5] = ["NAME", "STEP", "ATTEMPTS", "NEXT", "LAST ERROR"];

/// The cells of a stuck order, without the namespace.
pub(crate) fn cells(order: &Order, now: Timestamp) -> Vec<String> {
    let Some(Retry { step, attempts, next_attempt_time: MicroTime(next), last_error }) = retry(order) else { return Vec::new() };
    let next = if *next <= now { "now".to_owned() } else { format!("in {}", format_age(next.duration_since(now))) };
    vec![order.name_any(), format!("{step:?}"), attempts.to_string(), next, last_error.clone()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stuck_order_shows_its_step_attempts_next_try_and_error() {
        let now: Timestamp = "2026-11-29T08:00:00Z".parse().unwrap();
        let order = |next: &str| -> Order {
            serde_json::from_value(json!({
                "apiVersion": "arch.homework/v1", "kind": "Order", "metadata": {"name": "order-14", "namespace": "shop"},
                "spec": {"login": "a", "email": "a@b.cd", "cartId": 0, "amount": "10"},
                "status": {"retry": {"step": "Payment", "attempts": 7, "nextAttemptTime": next, "lastError": "billing: refused"}}
            }))
            .unwrap()
        };
        let expected = |next: &str| ["order-14", "Payment", "7", next, "billing: refused"].map(str::to_owned).to_vec();
        assert_eq!(cells(&order("2026-11-29T08:00:42Z"), now), expected("in 42s"));
        assert_eq!(cells(&order("2026-11-29T07:59:00Z"), now), expected("now"));
    }
}
