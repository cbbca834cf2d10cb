//! The contracts between the services. Each request, response and event is defined once, and client
//! and server use the same type. The OpenAPI and AsyncAPI documents are derived from these types.
//!
//! [`billing`], [`notify`] and [`archive`] define the HTTP calls. [`events`] defines the messages
//! over the broker, and [`topology`] the subjects and streams that carry them. [`interaction`]
//! names the ways in which the operator uses HTTP and the broker. [`outcome`] defines the
//! serialized form of an order's outcome in all of them. [`texts`] contains the messages in which a
//! customer reads the outcome.
//!
//! A new version may add optional fields and enumeration values. If a newer peer sends a value that
//! this version does not know, the value is read as *unknown*. It is never read as a refusal.

#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod archive;
pub mod asyncapi;
pub mod billing;
pub mod events;
pub mod interaction;
pub mod notify;
pub mod outcome;
pub mod texts;
pub mod topology;

use orders_crds::{Money, money::json_number};
use serde::{Deserialize, Serialize};

/// The header of a call to billing with the ID of the ledger that the call is for. Billing refuses a call
/// that is for another ledger than its own (409).
pub const LEDGER: &str = "orders-ledger";

/// The header that identifies a call, so that a repeated call has no second effect.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An amount of money as a JSON number with at least one decimal, for fields that may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount(#[serde(with = "json_number")] pub Money);
