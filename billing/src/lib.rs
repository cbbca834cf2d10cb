//! Billing: accounts and an append-only ledger, the money's record.

#![deny(missing_docs)]

pub mod config;
pub mod error;
pub mod ledger;
pub mod listener;
pub mod routes;
