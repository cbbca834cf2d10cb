//! `kubectl orders`: a kubectl plugin for the orders of a release, live and archived.
//!
//! The plugin calls the public REST API through the Kubernetes API server, with the user's own
//! kubeconfig ([`access`]), so that neither an Ingress nor a port-forward is needed. [`api`] has
//! the calls, and [`commands`] runs the commands with them. [`table`], [`age`], [`output`] and
//! [`watch`] are pure. [`audit`] and [`dead_letters`] do not use the API, but run a Job
//! ([`job`]), and [`stuck`] reads the resources.

#![deny(missing_docs)]

pub mod access;
pub mod age;
pub mod api;
pub mod arguments;
pub mod audit;
pub mod commands;
pub mod dead_letters;
pub mod job;
pub mod order;
pub mod output;
pub mod proxy;
pub mod stuck;
pub mod table;
pub mod watch;
