//! The final state of a workload, and how it is read.

use anyhow::Result;
use orders_testbed::wait_for;
use serde_json::Value;

use crate::{retry::SETTLE_TIMEOUT, system::System};

/// The final state, in a form that does not depend on the time of the run and its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// One line for each order, in the order in which they were placed.
    pub orders: Vec<String>,
    /// The customer's balance.
    pub balance: String,
    /// The texts of the customer's messages and whether each was sent.
    pub messages: Vec<(String, bool)>,
    /// The orders' UIDs, which are their mails' Message-IDs.
    pub uids: Vec<String>,
    /// How often each order's mail arrived, set by [`count_mails`]. More than one mail is not an error in itself.
    pub mails: Vec<usize>,
    /// Mails to the customer under any other Message-ID.
    pub stray_mails: usize,
    /// The last HTTP status of the public API for each order: 200, 400, 404, or 202 if the outcome took too long.
    pub statuses: Vec<u16>,
}

/// The texts of the customer's messages, and whether each was sent.
pub(super) fn texts(messages: &Value) -> impl Iterator<Item = (String, bool)> {
    let messages = messages.as_array().into_iter().flatten();
    messages.map(|m| (m["text"].as_str().unwrap_or_default().to_owned(), m["is_sended"] == true))
}

/// Reads a JSON document from the public API, once it responds with success.
pub(super) async fn get_json(system: &System, path: &str) -> Result<Value> {
    wait_for(&format!("a response to GET {path}"), SETTLE_TIMEOUT, || async {
        let response = system.http.get(format!("{}{path}", system.url)).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        response.json().await.ok()
    })
    .await
}
