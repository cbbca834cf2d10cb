//! Which ledger the orders of a namespace belong to.
//!
//! Two releases of the chart that watch the same orders have an operator each. Leader election does not keep
//! them apart, because each release has its own Lease, and the idempotency key of a charge does not
//! either, because each release has its own ledger. Therefore an operator claims a namespace for its
//! ledger before it reconciles the first order or customer there. An operator with another ledger
//! leaves the namespace alone, and says why.
//!
//! [`lease`] claims one namespace. [`ledgers`] finds out which ledger this operator's billing service
//! has, and keeps the claims of all namespaces.

mod lease;
mod ledgers;

pub use ledgers::{Claims, Ledgers};
