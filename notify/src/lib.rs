//! Notify: messages to customers, delivered over SMTP and logged.

#![deny(missing_docs)]

pub mod config;
pub mod delivery;
pub mod error;
mod group_commit;
mod in_flight;
pub mod listener;
pub mod log;
pub mod mailer;
pub mod routes;
pub mod smtp;
