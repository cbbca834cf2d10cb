//! Clients of billing, notify and the archive over HTTP.

pub mod accounts;
pub mod archive;
pub mod authorizations;
pub mod billing;
pub mod notify;
