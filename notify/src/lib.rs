//! Notify: delivers messages to customers over SMTP and logs them.

#![deny(missing_docs)]

pub mod config;
pub mod delivery;
pub mod error;
pub mod events;
mod group_commit;
mod in_flight;
pub mod listener;
pub mod log;
pub mod mailer;
pub mod message;
pub mod routes;
pub mod smtp;
