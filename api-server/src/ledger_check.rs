//! Checks that the orders of the namespace belong to the ledger in which this API shows balances.
//!
//! The operator claims the namespace for its ledger with a Lease. If another release has claimed it, the
//! orders that this API placed would be charged in the ledger of that release, and its customers' money
//! would be in this one. Therefore this API is not ready then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use orders_contracts::billing::LedgerId;
use orders_crds::LEDGER_LEASE;
use orders_service::http_client::Peer;
use reqwest::{Method, StatusCode};

use crate::kube_call::call;

/// How often the ledgers are compared.
const INTERVAL: Duration = Duration::from_secs(15);

/// The result of the latest comparison.
#[derive(Clone, Debug, Default)]
pub struct LedgerCheck(Arc<Mutex<Option<String>>>);

impl LedgerCheck {
    /// Starts to compare the ledger of this billing service with the one that has claimed the namespace.
    pub fn start(client: Client, namespace: String, billing: Peer) -> Self {
        let check = LedgerCheck::default();
        let updated = check.clone();
        tokio::spawn(async move {
            let leases: Api<Lease> = Api::namespaced(client, &namespace);
            loop {
                // What cannot be read now stays as it was.
                if let Some(problem) = compare(&leases, &namespace, &billing).await {
                    let mut last = updated.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(problem) = problem.as_ref().filter(|_| *last != problem) {
                        tracing::error!("{problem}");
                    }
                    *last = problem;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        check
    }

    /// Checks that no other ledger has claimed the namespace.
    ///
    /// # Errors
    /// Which one has, and what to do about it.
    pub fn check_ready(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

/// Returns the problem if the ledgers differ, `Some(None)` if they do not, and `None` if this is unknown.
async fn compare(leases: &Api<Lease>, namespace: &str, billing: &Peer) -> Option<Option<String>> {
    let claim = call(leases.get_opt(LEDGER_LEASE)).await.ok()?;
    let Some(claimed_by) = claim.and_then(|lease| lease.spec?.holder_identity) else { return Some(None) };
    let (status, body) = billing.send(billing.request(Method::GET, "/billing/ledger")).await.ok()?;
    if status == StatusCode::NOT_FOUND {
        // An older version has no ID.
        return Some(None);
    }
    let LedgerId { id } = serde_json::from_slice(&body).ok()?;
    Some((id != claimed_by).then(|| {
        format!(
            "the orders of namespace {namespace} belong to ledger {claimed_by}, and the billing service of this release has ledger \
             {id}; see the log of the operator"
        )
    }))
}
