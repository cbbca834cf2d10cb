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
    /// By UID: the key of the charge that is captured.
    captured: HashMap<String, String>,
}

impl Captures {
    pub(super) fn new(authorizations: Authorizations) -> Self {
        Captures { authorizations, captured: HashMap::new() }
    }

    /// Captures the charges of those orders that are paid. If billing does not respond, the next call
    /// tries again.
    pub(super) async fn capture(&mut self, orders: impl Iterator<Item = &Order>) {
        let charges: Vec<(String, String)> =
            orders.filter_map(paid_charge).filter(|(uid, key)| self.captured.get(uid) != Some(key)).collect();
        for charges in charges.chunks(MAX_CAPTURES) {
            match self.authorizations.capture(charges.iter().map(|(_, key)| key.clone()).collect()).await {
                Ok(captured) => {
                    metrics::counter!("orders_charges_captured_total").increment(captured as u64);
                    self.captured.extend(charges.iter().cloned());
                }
                Err(error) => {
                    tracing::warn!(charges = charges.len(), %error, "the charges of finished orders are not captured; retrying");
                    return;
                }
            }
        }
    }

    /// Forgets the orders that are not among these UIDs.
    pub(super) fn retain(&mut self, uids: &HashSet<&str>) {
        self.captured.retain(|uid, _| uids.contains(&**uid));
    }
}

/// The UID of the order and the key of its charge, if it is paid.
fn paid_charge(order: &Order) -> Option<(String, String)> {
    let (uid, status) = (order.uid()?, order.status.as_ref()?);
    let key = charge_key(order.key_uid(), status.attempt());
    (status.outcome() == Outcome::Paid).then_some((uid, key))
}
