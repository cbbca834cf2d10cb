//! Billing: customers' accounts, and an append-only ledger that records every movement of money.

#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod config;
pub mod error;
pub mod ledger;
pub mod listener;
pub mod routes;
