//! Notify: messages to customers, delivered over SMTP and logged.

#![deny(missing_docs)]

pub mod config;
pub mod delivery;
pub mod error;
pub mod listener;
pub mod log;
pub mod mailer;
pub mod routes;
pub mod smtp;
