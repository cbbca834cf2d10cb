//! What the services say to each other: each request, answer and event once, used by client
//! and server alike. The OpenAPI and AsyncAPI documents are derived from these types.
//!
//! [`billing`], [`notify`] and [`archive`] are the HTTP calls, [`events`] the messages over
//! the broker, [`topology`] the subjects and streams that carry them. [`outcome`] is how an
//! order's outcome is written in all of them, [`texts`] how a customer reads it.
//!
//! A version adds optional fields and enumeration values. A value that a newer peer sends and
//! this version does not know is *unknown*: it is never taken for a refusal.

#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod archive;
pub mod asyncapi;
pub mod billing;
pub mod events;
pub mod notify;
pub mod outcome;
pub mod texts;
pub mod topology;

use orders_crds::{Money, money::json_number};
use serde::{Deserialize, Serialize};

/// The header that makes a repeat of a call have its first effect only.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An amount of money as a JSON number with at least one decimal, where it may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount(#[serde(with = "json_number")] pub Money);
