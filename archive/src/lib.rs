//! Archive: stores finished orders permanently, after their resources are removed from Kubernetes.

#![deny(missing_docs)]

pub mod config;
pub mod entry;
pub mod error;
pub mod history;
pub mod listing;
pub mod routes;
pub mod store;
