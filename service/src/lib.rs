//! The library that all services share: HTTP servers and clients, the broker, databases,
//! authentication, logs and shutdown. It contains no logic about orders.

#![deny(missing_docs)]

pub mod admin;
pub mod arguments;
pub mod auth;
pub mod broker;
pub mod database;
pub mod group_commit;
pub mod http_client;
pub mod idempotency;
pub mod json;
pub mod kubernetes;
pub mod problem;
pub mod problem_examples;
pub mod query;
#[cfg(debug_assertions)]
pub mod seeded_bugs;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod token_file;

pub use idempotency::IdempotencyKey;
pub use json::{Json, JsonList};
pub use problem::Problem;
