//! The claims of all namespaces of this operator.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::{Client, Resource, ResourceExt, runtime::watcher::Event};
use orders_crds::LEDGER_LEASE;
use tokio::time::Instant;

use super::lease::{Claim, Claimant, guess};
use crate::{
    kube::KubeError,
    ports::{
        http::accounts::Accounts,
        ledger_gate::{LedgerGate, Pass},
    },
};

/// The delay before a call is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How long billing may take until it responds: at an installation, all services start at once.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the claims are checked: whether this operator's were taken away, and whether others were given up.
const INTERVAL: Duration = Duration::from_secs(15);

/// Finds out which ledger this operator charges orders in.
#[derive(Clone)]
pub struct Ledgers {
    client: Client,
    accounts: Accounts,
    operator_lease: Option<String>,
    gate: LedgerGate,
    problem: Arc<Mutex<Option<String>>>,
}

impl Ledgers {
    /// The ledger is that of the billing service of `accounts`. `operator_lease` is the Lease that this
    /// operator needs to be active, as `NAMESPACE/NAME`; `None` without leader election. `gate` lets calls to
    /// billing through while its ledger is known.
    pub fn new(client: Client, accounts: Accounts, operator_lease: Option<String>, gate: LedgerGate) -> Self {
        Ledgers { client, accounts, operator_lease, gate, problem: Arc::default() }
    }

    /// Checks that this operator is not kept from its work by the claim of another ledger.
    ///
    /// # Errors
    /// The claim that keeps the operator from its work, and the action that an administrator can take.
    pub fn check_ready(&self) -> Result<(), String> {
        self.lock_problem().clone().map_or(Ok(()), Err)
    }

    /// Returns the claims of billing's ledger. Each call forgets the claims that an earlier one returned, and
    /// lets calls to billing through if its ledger is known.
    pub async fn open(&self) -> Arc<Claims> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut ledger = self.ledger().await;
        while ledger == Ledger::Unknown && Instant::now() < deadline {
            tokio::time::sleep(RETRY_DELAY).await;
            ledger = self.ledger().await;
        }
        if ledger == Ledger::Unknown {
            tracing::warn!("billing does not respond: it is not known which ledger it has, so nothing is charged until then");
        }
        self.gate.set(ledger.pass());
        metrics::gauge!("orders_namespaces_of_other_ledgers").set(0.0);
        Arc::new(Claims { ledgers: self.clone(), ledger, claims: Mutex::default() })
    }

    async fn ledger(&self) -> Ledger {
        match self.accounts.ledger_id().await {
            Ok(Some(ledger)) => Ledger::Known(Claimant { ledger, operator_lease: self.operator_lease.clone() }),
            Ok(None) => Ledger::WithoutId,
            Err(error) => {
                tracing::debug!(%error, "billing does not say which ledger it has");
                Ledger::Unknown
            }
        }
    }

    fn lock_problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger of billing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ledger {
    Known(Claimant),
    /// Billing is of a version without IDs, as during an upgrade.
    WithoutId,
    /// Billing does not respond.
    Unknown,
}

impl Ledger {
    /// Which calls the gate lets through.
    fn pass(&self) -> Option<Pass> {
        match self {
            Ledger::Known(claimant) => Some(Pass::To(claimant.ledger.clone())),
            Ledger::WithoutId => Some(Pass::ToAny),
            Ledger::Unknown => None,
        }
    }
}

/// The claims of one ledger, as far as they were needed.
pub struct Claims {
    ledgers: Ledgers,
    ledger: Ledger,
    claims: Mutex<BTreeMap<String, Claim>>,
}

impl Claims {
    /// Whether billing has said which ledger it has.
    pub fn is_ledger_known(&self) -> bool {
        self.ledger != Ledger::Unknown
    }

    /// Waits until the orders and customers of this namespace are this ledger's. Meanwhile the operator is not
    /// ready.
    pub async fn acquire(&self, namespace: &str) {
        let _ready_again = ClearOnDrop(&self.ledgers);
        while !self.is_own(namespace).await {
            *self.ledgers.lock_problem() = self.refusal(namespace);
            tokio::time::sleep(INTERVAL).await;
            self.lock().remove(namespace);
        }
    }

    /// Whether the orders and customers of this namespace are this ledger's. The first call for a
    /// namespace claims it, and repeats this until the API server responds.
    pub async fn is_own(&self, namespace: &str) -> bool {
        let known = self.lock().get(namespace).cloned();
        let claim = match known {
            Some(claim) => claim,
            None => loop {
                match self.claim(namespace).await {
                    Ok(claim) => break claim,
                    Err(error) => tracing::warn!(namespace, %error, "cannot claim the orders of the namespace; retrying"),
                }
                tokio::time::sleep(RETRY_DELAY).await;
            },
        };
        // What is left in a namespace that ends has to be settled.
        matches!(claim, Claim::Own | Claim::Ending | Claim::Gone)
    }

    /// Whether an event of a watch is about an object of this ledger, or about none. See [`Self::is_own`].
    pub fn includes<K: Resource>(self: &Arc<Self>, event: &Event<K>) -> impl Future<Output = bool> + Send + use<K> {
        let namespace = match event {
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => object.namespace(),
            Event::Init | Event::InitDone => None,
        };
        let claims = self.clone();
        async move {
            match namespace {
                Some(namespace) => claims.is_own(&namespace).await,
                None => true,
            }
        }
    }

    /// Returns when a namespace was claimed by another ledger, when one that another ledger had is free, or
    /// when billing has another ledger, or says which one it has. The caller then has to [open](Ledgers::open) the claims again.
    pub async fn changed(&self) {
        let mut is_reachable = self.is_ledger_known();
        loop {
            tokio::time::sleep(if is_reachable { INTERVAL } else { RETRY_DELAY }).await;
            match self.ledgers.ledger().await {
                Ledger::Unknown => {
                    self.ledgers.gate.set(None);
                    is_reachable = false;
                    continue;
                }
                ledger if !self.is_ledger_known() => return tracing::info!(?ledger, "billing says which ledger it has"),
                ledger if ledger != self.ledger => return tracing::warn!(?ledger, "billing has another ledger than before"),
                Ledger::Known(_) | Ledger::WithoutId => {}
            }
            if !is_reachable {
                self.ledgers.gate.set(self.ledger.pass());
                is_reachable = true;
            }
            let known = self.lock().clone();
            for (namespace, before) in known {
                match self.claim(&namespace).await {
                    Ok(Claim::Gone) => {}
                    Ok(claim) if claim != before => {
                        return tracing::warn!(namespace, "the namespace has another ledger than before");
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(namespace, %error, "the claim of the namespace cannot be checked"),
                }
            }
        }
    }

    /// Claims the namespace, and records whose it is. A namespace that ends stays whose it was.
    async fn claim(&self, namespace: &str) -> Result<Claim, KubeError> {
        let Ledgers { client, operator_lease, .. } = &self.ledgers;
        let claim = match &self.ledger {
            Ledger::Known(claimant) => claimant.claim(client, namespace).await?,
            Ledger::Unknown => guess(client, namespace, operator_lease.as_deref()).await?,
            Ledger::WithoutId => Claim::Own,
        };
        if claim == Claim::Gone {
            self.lock().remove(namespace);
            return Ok(claim);
        }
        if claim == Claim::Ending
            && let Some(before) = self.lock().get(namespace)
        {
            return Ok(before.clone());
        }
        if self.lock().insert(namespace.to_owned(), claim.clone()).as_ref() != Some(&claim) {
            if let Some(refusal) = self.refusal(namespace) {
                tracing::error!("{refusal}");
            }
            let others = self.lock().values().filter(|claim| matches!(claim, Claim::Other(_) | Claim::Refused(_))).count();
            metrics::gauge!("orders_namespaces_of_other_ledgers").set(others as f64);
        }
        Ok(claim)
    }

    /// Why the orders of this namespace are left alone. `None` if they are not.
    fn refusal(&self, namespace: &str) -> Option<String> {
        let claims = self.lock();
        let other = match claims.get(namespace)? {
            Claim::Other(other) => other,
            Claim::Refused(reason) => {
                return Some(format!(
                    "the orders of namespace {namespace} are left alone: the claim of their ledger is refused: {reason}. The \
                     operator needs the verbs get, create and update on leases (coordination.k8s.io) there"
                ));
            }
            Claim::Own | Claim::Ending | Claim::Gone => return None,
        };
        let own = match &self.ledger {
            Ledger::Known(claimant) => &*claimant.ledger,
            Ledger::WithoutId | Ledger::Unknown => "(unknown)",
        };
        Some(format!(
            "the orders and customers of namespace {namespace} belong to ledger {other}, and the billing service of this release \
             has ledger {own}: charging them here could charge them twice, so this release leaves them alone. Install it in \
             another namespace, or connect it to the database of that ledger. If that ledger is gone for good: kubectl delete \
             lease {LEDGER_LEASE} -n {namespace}"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the operator ready again at the end of the wait, also if another replica becomes the leader meanwhile.
struct ClearOnDrop<'a>(&'a Ledgers);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.lock_problem() = None;
    }
}
