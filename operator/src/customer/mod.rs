//! The `Customer` controller: it opens the billing account of each customer, and shows the balance
//! in the status.

pub mod context;
pub mod controller;
pub mod reconcile;

use kube::core::DeserializeGuard;
use orders_crds::Customer;

/// A Customer that may fail to parse. A parse error must not stop the watch of the other customers.
pub type CustomerGuard = DeserializeGuard<Customer>;
