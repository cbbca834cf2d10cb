//! The operator: it reconciles the `Order` and `Customer` resources.
//!
//! [`order`] and [`customer`] contain the controller of one kind each. [`kube`] contains their
//! calls to the Kubernetes API, [`ports`] their calls to the other services. [`tasks`] runs the
//! controllers while this replica is the [`leader`], on the namespaces that it [`claims`].

#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod claims;
pub mod config;
pub mod customer;
pub mod kube;
pub mod leader;
pub mod order;
pub mod ports;
#[cfg(debug_assertions)]
pub mod seeded_bugs;
pub mod tasks;
