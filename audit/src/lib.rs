//! The audit: joins the Order resources, the ledger and the message log of a live installation, and
//! reports whether they agree.
//!
//! [`collect`] reads a snapshot, [`check`] checks the snapshot with a pure function, and [`report`]
//! formats the result.

#![deny(missing_docs)]

pub mod check;
pub mod collect;
pub mod config;
pub mod report;
