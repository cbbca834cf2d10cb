//! The front door: turns HTTP requests into `Order` resources and answers with
//! their outcome. Decides nothing about money, writes no status.

#![deny(missing_docs)]

pub mod archive;
pub mod changes;
pub mod config;
pub mod customers;
pub mod listing;
pub mod order_id;
pub mod orders;
pub mod outcome;
pub mod prefer;
pub mod routes;
