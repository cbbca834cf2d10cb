//! Archive: finished orders, kept for good once they are no longer Kubernetes resources.

#![deny(missing_docs)]

pub mod config;
pub mod entry;
pub mod error;
pub mod history;
pub mod listing;
pub mod routes;
pub mod store;
