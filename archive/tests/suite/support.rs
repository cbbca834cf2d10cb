//! Orders to put into the archive, and databases to put them into.

use std::{future::Future, time::Instant};

use anyhow::Result;
use jiff::Timestamp;
use orders_archive::{
    entry::Entry,
    error::ArchiveError,
    store::{MIGRATIONS, Store},
};
use orders_service::database::{self, Database};
use orders_testbed::{PATIENCE, Postgres};
use serde_json::{Value, json};

/// Runs a test on SQLite and on PostgreSQL, each with a database of its own.
pub async fn on_both<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Database) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let directory = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", directory.path().join("archive.db").display());
    test(Database::open(&sqlite, 10, MIGRATIONS).await?).await?;
    let postgres = Postgres::start(directory.path()).await?;
    test(Database::open(&postgres.url(), 10, MIGRATIONS).await?).await
}

/// Calls again while the database is busy, as every caller does.
pub async fn surely<F: Future<Output = Result<(), ArchiveError>>>(call: impl Fn() -> F) -> Result<(), ArchiveError> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(ArchiveError::Database(error)) if database::is_unavailable(&error) && start.elapsed() < PATIENCE => {
                eprintln!("calling again: {error}");
            }
            answer => return answer,
        }
    }
}

/// An order to be, which was paid unless its state says otherwise.
#[derive(Clone, Debug)]
pub struct Sample {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub login: String,
    pub state: &'static str,
    pub created_second: i64,
    pub revision: i64,
    /// What the status still has of what happened: its entries' numbers, one a second.
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

    /// As Kubernetes has it.
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
            resource["status"]["history"] = self.history.iter().map(|number| happened(*number)).collect();
        }
        resource
    }

    pub fn entry(&self) -> Entry {
        Entry::read(self.resource()).expect("a finished order")
    }
}

/// An entry of a history.
fn happened(number: i64) -> Value {
    let time = Timestamp::from_second(1_737_957_687 + number).expect("a time").to_string();
    json!({"time": time, "action": "Charge", "reason": "Paid", "message": number.to_string()})
}

/// The numbers of the entries in a resource's history.
pub fn numbers(resource: &Value) -> Vec<i64> {
    let entries = resource["status"]["history"].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["message"].as_str()?.parse().ok()).collect()
}

/// What the archive has under a UID.
pub async fn kept(store: &Store, uid: &str) -> Result<Option<Value>> {
    Ok(store.find(uid).await?.map(|json| serde_json::from_str(&json)).transpose()?)
}
