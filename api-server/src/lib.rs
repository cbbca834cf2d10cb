//! The public HTTP API: creates `Order` resources from HTTP requests and answers with their
//! outcome. The api-server decides nothing about money and writes no status.

#![deny(missing_docs)]

pub mod archive;
pub mod changes;
pub mod config;
pub mod cross_origin;
pub mod customers;
pub mod kube_call;
pub mod ledger_check;
pub mod listing;
pub mod order_cache;
pub mod order_id;
pub mod orders;
pub mod prefer;
pub mod proxy;
pub mod routes;
