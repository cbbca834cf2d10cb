//! `kubectl orders`: a kubectl plugin for the orders of a release, live and archived.
//!
//! The plugin calls the public REST API through the Kubernetes API server, with the user's own
//! kubeconfig ([`access`]), so that neither an Ingress nor a port-forward is needed. [`api`] has
//! the calls, and [`commands`] runs the commands with them. [`table`], [`age`], [`output`] and
//! [`watch`] are pure. Only [`audit`] and [`stuck`] do not use the API: they run a Job, and read the
//! resources.

#![deny(missing_docs)]

pub mod access;
pub mod age;
pub mod api;
pub mod arguments;
pub mod audit;
pub mod commands;
pub mod order;
pub mod output;
pub mod proxy;
pub mod stuck;
pub mod table;
pub mod watch;
