//! The operator: the life of an `Order`.
//!
//! [`order`] and [`customer`] are the kinds, each with its controller. [`kube`] is the
//! Kubernetes API as they use it, [`ports`] the other services. [`tasks`] runs all of it
//! while this replica is the [`leader`].

#![deny(missing_docs)]

pub mod config;
pub mod customer;
pub mod kube;
pub mod leader;
pub mod order;
pub mod ports;
#[cfg(debug_assertions)]
pub mod seeded_bugs;
pub mod tasks;
