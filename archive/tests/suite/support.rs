//! Sample orders and test databases.

use std::{future::Future, time::Instant};

use anyhow::Result;
use jiff::Timestamp;
use orders_archive::{
    entry::Entry,
    error::ArchiveError,
    store::{MIGRATIONS, Store},
};
use orders_service::database::{self, Database, Timeouts};
use orders_testbed::{Postgres, WAIT_TIMEOUT};
use serde_json::{Value, json};

/// Runs a test on SQLite and on PostgreSQL, each with a database of its own.
pub async fn on_both_databases<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Database) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let directory = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", directory.path().join("archive.db").display());
    test(Database::open_with_timeouts(&sqlite, 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?).await?;
    let postgres = Postgres::start(directory.path()).await?;
    test(Database::open_with_timeouts(&postgres.url(), 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?).await
}

/// Retries a call while the database is unavailable, as every caller does.
pub async fn retry_while_unavailable<F: Future<Output = Result<(), ArchiveError>>>(
    call: impl Fn() -> F,
) -> Result<(), ArchiveError> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(ArchiveError::Database(error)) if database::is_unavailable(&error) && start.elapsed() < WAIT_TIMEOUT => {
                eprintln!("retrying: {error}");
            }
            result => return result,
        }
    }
}

/// A sample order. It is paid unless `state` has another value.
#[derive(Clone, Debug)]
pub struct Sample {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub login: String,
    pub state: &'static str,
    pub created_second: i64,
    pub revision: i64,
    /// The numbers of the history entries in the status, one entry per second.
    pub history: Vec<i64>,
}

impl Sample {
    pub fn new(uid: &str) -> Self {
        Sample {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: format!("order-{uid}"),
            login: "anna".to_owned(),
            state: "Paid",
            created_second: 1_737_957_687,
            revision: 1,
            history: Vec::new(),
        }
    }

    /// Returns the resource as Kubernetes stores it.
    pub fn resource(&self) -> Value {
        let time = Timestamp::from_second(self.created_second).expect("a time").to_string();
        let status = match self.state {
            "Paid" => "True",
            "Processing" => "Unknown",
            _ => "False",
        };
        let mut resource = json!({
            "apiVersion": "arch.homework/v1",
            "kind": "Order",
            "metadata": {
                "uid": self.uid, "namespace": self.namespace, "name": self.name, "creationTimestamp": time,
                "resourceVersion": self.revision.to_string()
            },
            "spec": {"id": 14, "login": self.login, "email": "a@example.com", "cartId": 0, "amount": "100.50"},
            "status": {"conditions": [
                {"type": "Succeeded", "status": status, "reason": self.state, "message": "", "lastTransitionTime": time}
            ]}
        });
        if !self.history.is_empty() {
            resource["status"]["history"] = self.history.iter().map(|number| history_entry(*number)).collect();
        }
        resource
    }

    pub fn entry(&self) -> Entry {
        Entry::from_resource(self.resource()).expect("a finished order")
    }
}

/// Returns the history entry with this number.
fn history_entry(number: i64) -> Value {
    let time = Timestamp::from_second(1_737_957_687 + number).expect("a time").to_string();
    json!({"time": time, "action": "Charge", "reason": "Paid", "message": number.to_string()})
}

/// Returns the numbers of the entries in a resource's history.
pub fn history_numbers(resource: &Value) -> Vec<i64> {
    let entries = resource["status"]["history"].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["message"].as_str()?.parse().ok()).collect()
}

/// Returns the archived order with this UID.
pub async fn find_stored(store: &Store, uid: &str) -> Result<Option<Value>> {
    Ok(store.find(uid).await?.map(|json| serde_json::from_str(&json)).transpose()?)
}
