//! The dependencies for reconciling customers.

use std::{
    collections::HashSet,
    mem::take,
    sync::{Arc, Mutex, PoisonError},
};

use kube::Client;

use crate::{kube::events::Publisher, ports::http::accounts::Accounts};

/// The dependencies for reconciling a customer, and the logins whose balance changed.
pub struct Customers {
    pub(super) client: Client,
    pub(super) accounts: Accounts,
    pub(super) events: Publisher,
    changed: Mutex<HashSet<String>>,
}

impl Customers {
    /// Creates the controller of customers whose accounts are in this billing service.
    pub fn new(client: Client, accounts: Accounts, events: Publisher) -> Arc<Self> {
        Arc::new(Customers { client, accounts, events, changed: Mutex::default() })
    }

    /// Records that the balance of this login's account changed.
    pub fn record_balance_change(&self, login: &str) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(login.to_owned());
    }

    /// Takes the logins whose balance changed since the last call.
    pub(super) fn take_changed(&self) -> HashSet<String> {
        take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
