//! The audit: joins the Order resources, the ledger and the message log of a
//! live installation, and says whether the money adds up.
//!
//! [`collect`] reads everything, [`check`] is a pure function over what was
//! read, [`report`] puts it into words.

#![deny(missing_docs)]

pub mod check;
pub mod collect;
pub mod config;
pub mod report;
