//! Scale tests: many orders on a private control plane. No order is lost or processed
//! twice, and the size of the stores stays within bounds.
//!
//! `make test-scale` runs these tests one at a time: their assertions about time need an otherwise
//! idle machine.

mod etcd;
mod failover;
mod fairness;
mod load;
mod volume;
