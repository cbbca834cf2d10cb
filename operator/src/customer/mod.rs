//! The life of a `Customer`: its billing account is opened, and its balance shown.

pub mod controller;
pub mod reconcile;

use kube::core::DeserializeGuard;
use orders_crds::Customer;

/// A Customer that may fail to parse: one that does must not stop the watch of the others.
pub type CustomerGuard = DeserializeGuard<Customer>;
