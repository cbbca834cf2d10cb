//! Notify: delivers messages to customers over SMTP and logs them.

#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod config;
pub mod delivery;
pub mod error;
mod group_commit;
mod in_flight;
mod lease;
pub mod listener;
pub mod log;
pub mod mailer;
pub mod message;
pub mod publisher;
pub mod routes;
pub mod smtp;
