//! Which live orders the archive has stored, and which it has refused.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use orders_crds::Order;

/// Which live orders the archive has stored, and which it has refused.
#[derive(Debug, Default)]
pub(super) struct Archived {
    /// By UID: the version that is stored, and the time when it was stored.
    versions: HashMap<String, (String, Timestamp)>,
    /// By UID: the version that was refused.
    refused: HashMap<String, String>,
}

impl Archived {
    /// Forgets the orders that are not among these UIDs.
    pub(super) fn retain(&mut self, uids: &HashSet<&str>) {
        self.versions.retain(|uid, _| uids.contains(&**uid));
        self.refused.retain(|uid, _| uids.contains(&**uid));
    }

    /// When the archive stored this version of the order.
    pub(super) fn archived_at(&self, order: &Order) -> Option<Timestamp> {
        let (uid, version) = uid_and_version(order)?;
        self.versions.get(uid).filter(|(archived, _)| archived == version).map(|(_, time)| *time)
    }

    pub(super) fn contains(&self, order: &Order) -> bool {
        self.archived_at(order).is_some()
    }

    pub(super) fn is_refused(&self, order: &Order) -> bool {
        uid_and_version(order).is_some_and(|(uid, version)| self.refused.get(uid).is_some_and(|refused| refused == version))
    }

    pub(super) fn record_refused(&mut self, order: &Order) {
        if let Some((uid, version)) = uid_and_version(order) {
            self.refused.insert(uid.to_owned(), version.to_owned());
        }
    }

    /// The number of orders that the archive has refused.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Records the order as archived long ago.
    #[cfg(debug_assertions)]
    pub(super) fn record_as_old(&mut self, order: &Order) {
        if let Some((uid, version)) = uid_and_version(order) {
            self.versions.insert(uid.to_owned(), (version.to_owned(), Timestamp::UNIX_EPOCH));
        }
    }

    pub(super) fn record(&mut self, order: &Order) {
        if let Some((uid, version)) = uid_and_version(order) {
            self.versions.insert(uid.to_owned(), (version.to_owned(), Timestamp::now()));
        }
    }
}

/// The order's UID and resource version. Kubernetes assigns both to each resource.
fn uid_and_version(order: &Order) -> Option<(&str, &str)> {
    order.metadata.uid.as_deref().zip(order.metadata.resource_version.as_deref())
}
