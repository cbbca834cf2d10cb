//! The raw client: the writes of an order, and nothing else.
//!
//! HTTP/1.1, a connection for each request under way, bodies made by replacing
//! numbers in a text, and of an answer only the UID and the version are read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::{Method, Request, header};
use kube::Client;
use orders_testbed::Cluster;
use serde::Deserialize;
use tokio::time::timeout;

use crate::sample::{Numbers, Sample};

/// How long one write may take: as long as an order's answer, or the measurement is given up.
const LIMIT: Duration = Duration::from_secs(30);

/// Writes orders into one namespace.
#[derive(Clone)]
pub struct Writer {
    clients: Arc<Vec<Client>>,
    sample: Arc<Sample>,
    namespace: String,
    /// Whether an order's events are written.
    pub events: bool,
    /// Whether it is removed in the end.
    pub removal: bool,
}

/// What is read of an answer.
#[derive(Debug, Deserialize)]
struct Written {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
}

impl Writer {
    /// Writes orders like the sample, over so many pools of connections: one alone
    /// has a queue that all requests pass.
    ///
    /// # Errors
    /// When there is no client for the cluster.
    pub async fn new(cluster: &Cluster, pools: u32, sample: Arc<Sample>, namespace: &str) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..pools {
            clients.push(cluster.client().await?);
        }
        Ok(Writer { clients: Arc::new(clients), sample, namespace: namespace.to_owned(), events: false, removal: false })
    }

    /// The same in another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Writer { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// Creates an order and no more; `worker` picks the connections and the account.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn unfinished(&self, worker: u32) -> Result<()> {
        self.create(worker, &Numbers::new(&login(worker))).await.map(drop)
    }

    /// Writes an order from its creation to its end. Returns how long the two writes
    /// took that its customer would wait for: create and status.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn finished(&self, worker: u32) -> Result<Duration> {
        let numbers = Numbers::new(&login(worker));
        let started = Instant::now();
        let Metadata { uid, resource_version } = self.create(worker, &numbers).await?;
        let path = self.path(&format!("/{}/status?fieldManager=orders-operator", numbers.name()));
        let patch = self.sample.status(&numbers, &uid, &resource_version);
        let written: Written = self.send(worker, Method::PATCH, &path, "application/merge-patch+json", patch).await?;
        let pair = started.elapsed();
        if self.events {
            let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.namespace);
            for event in self.sample.stories(&numbers, &uid, &self.namespace) {
                let _: Written = self.send(worker, Method::POST, &path, "application/json", event).await?;
            }
        }
        if self.removal {
            let version = written.metadata.resource_version;
            let options = format!(
                r#"{{"propagationPolicy":"Background","preconditions":{{"uid":"{uid}","resourceVersion":"{version}"}}}}"#
            );
            let path = self.path(&format!("/{}", numbers.name()));
            let _: serde::de::IgnoredAny =
                self.send(worker, Method::DELETE, &path, "application/json", options.into_bytes()).await?;
        }
        Ok(pair)
    }

    async fn create(&self, worker: u32, numbers: &Numbers) -> Result<Metadata> {
        let body = self.sample.create(numbers);
        let written: Written = self.send(worker, Method::POST, &self.path(""), "application/json", body).await?;
        Ok(written.metadata)
    }

    fn path(&self, rest: &str) -> String {
        format!("/apis/arch.homework/v1/namespaces/{}/orders{rest}", self.namespace)
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        worker: u32,
        method: Method,
        path: &str,
        content: &str,
        body: Vec<u8>,
    ) -> Result<T> {
        let request = Request::builder().method(&method).uri(path);
        let request = request.header(header::ACCEPT, "application/json").header(header::CONTENT_TYPE, content).body(body)?;
        let client = &self.clients[worker as usize % self.clients.len()];
        let sent = timeout(LIMIT, client.request(request)).await;
        sent.with_context(|| format!("{method} {path} was not answered in {LIMIT:?}"))?
            .with_context(|| format!("{method} {path}"))
    }
}

/// The account of a worker. All are equally long, so that orders are.
pub fn login(worker: u32) -> String {
    format!("customer-{worker:03}")
}
