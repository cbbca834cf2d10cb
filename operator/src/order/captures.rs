//! Captures the charges of finished orders, in batches. A captured charge is final, so the order must
//! be recorded before: by the archive, or by its status if there is no archive.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;
use orders_contracts::billing::MAX_CAPTURES;
use orders_crds::{Order, Outcome, order::charge_key};

use crate::ports::http::authorizations::Authorizations;

/// Captures charges, and remembers those of live orders that are captured.
#[derive(Debug)]
pub(super) struct Captures {
    authorizations: Authorizations,
    /// By UID: the attempt whose charge is captured.
    captured: HashMap<String, i32>,
}

impl Captures {
    pub(super) fn new(authorizations: Authorizations) -> Self {
        Captures { authorizations, captured: HashMap::new() }
    }

    /// Captures the charges of those orders that are paid. If billing does not respond, the next call
    /// tries again.
    pub(super) async fn capture(&mut self, orders: impl Iterator<Item = &Order>) {
        // The charges of most live orders are captured already. No keys are built for them.
        let charged = orders.filter_map(|order| Some((order, paid_attempt(order)?)));
        let new: Vec<(&Order, i32)> = charged.filter(|(order, attempt)| !self.contains(order, *attempt)).collect();
        for batch in new.chunks(MAX_CAPTURES) {
            let keys = batch.iter().map(|(order, attempt)| charge_key(order.key_uid(), *attempt)).collect();
            match self.authorizations.capture(keys).await {
                Ok(captured) => {
                    metrics::counter!("orders_charges_captured_total").increment(captured as u64);
                    self.captured.extend(batch.iter().filter_map(|(order, attempt)| Some((order.uid()?, *attempt))));
                }
                Err(error) => {
                    tracing::warn!(charges = batch.len(), %error, "the charges of finished orders are not captured; retrying");
                    return;
                }
            }
        }
    }

    fn contains(&self, order: &Order, attempt: i32) -> bool {
        order.metadata.uid.as_deref().is_some_and(|uid| self.captured.get(uid) == Some(&attempt))
    }

    /// Forgets the orders that are not among these UIDs.
    pub(super) fn retain(&mut self, uids: &HashSet<&str>) {
        self.captured.retain(|uid, _| uids.contains(&**uid));
    }
}

/// The attempt that charged the order, if it is paid.
fn paid_attempt(order: &Order) -> Option<i32> {
    let status = order.status.as_ref()?;
    (status.outcome() == Outcome::Paid).then(|| status.attempt())
}
