//! `kubectl orders`: a plugin of kubectl for the orders of a release, live and
//! archived ones alike.
//!
//! It asks the public REST API, which it reaches through the Kubernetes API
//! server with the user's own kubeconfig ([`access`]), so that neither an Ingress
//! nor a port-forward is needed. [`api`] has the calls, [`commands`] what is done
//! with them; [`table`], [`age`], [`output`] and [`watch`] are pure. [`audit`] alone
//! has nothing to do with the API: it runs a Job.

#![deny(missing_docs)]

pub mod access;
pub mod age;
pub mod api;
pub mod arguments;
pub mod audit;
pub mod commands;
pub mod order;
pub mod output;
pub mod table;
pub mod watch;
