//! The raw client: it makes the writes of an order to the Kubernetes API, and nothing else.
//!
//! It uses HTTP/1.1 with one connection for each request in flight. It creates bodies by replacing
//! numbers in a text, and parses only the UID and the version of a response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::{Method, Request, header};
use kube::Client;
use orders_testbed::Cluster;
use serde::Deserialize;
use tokio::time::timeout;

use crate::order_template::{Numbers, OrderTemplate};

/// The time limit for one write, after which the measurement fails. It equals that for the response to an order.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes orders into one namespace.
#[derive(Clone)]
pub struct Writer {
    clients: Arc<Vec<Client>>,
    template: Arc<OrderTemplate>,
    namespace: String,
    /// Whether an order's events are written.
    pub events: bool,
    /// Whether an order is deleted at the end.
    pub removal: bool,
}

/// The fields of a response that are parsed.
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
    /// Creates a client that writes orders like the template, over several pools of connections. In a single
    /// pool, all requests would wait in one queue.
    ///
    /// # Errors
    /// If the client for the cluster cannot be created.
    pub async fn new(cluster: &Cluster, pools: u32, template: Arc<OrderTemplate>, namespace: &str) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..pools {
            clients.push(cluster.client().await?);
        }
        Ok(Writer { clients: Arc::new(clients), template, namespace: namespace.to_owned(), events: false, removal: false })
    }

    /// Returns a client for another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Writer { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// Creates an order without its further writes. `worker` selects the pool and the account.
    ///
    /// # Errors
    /// If the API server refuses the request or does not respond.
    pub async fn write_unfinished(&self, worker: u32) -> Result<()> {
        self.create(worker, &Numbers::new(&login(worker))).await.map(drop)
    }

    /// Makes all writes of an order. Returns the time of the two writes for which its
    /// customer would wait: create and status.
    ///
    /// # Errors
    /// If the API server refuses a request or does not respond.
    pub async fn write_finished(&self, worker: u32) -> Result<Duration> {
        let numbers = Numbers::new(&login(worker));
        let started = Instant::now();
        let Metadata { uid, resource_version } = self.create(worker, &numbers).await?;
        let path = self.path(&format!("/{}/status?fieldManager=orders-operator", numbers.name()));
        let patch = self.template.status_patch(&numbers, &uid, &resource_version);
        let written: Written = self.send(worker, Method::PATCH, &path, "application/merge-patch+json", patch).await?;
        let pair = started.elapsed();
        if self.events {
            let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.namespace);
            for event in self.template.events(&numbers, &uid, &self.namespace) {
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
        let body = self.template.create_body(numbers);
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
        let sent = timeout(WRITE_TIMEOUT, client.request(request)).await;
        sent.with_context(|| format!("{method} {path} got no response within {WRITE_TIMEOUT:?}"))?
            .with_context(|| format!("{method} {path}"))
    }
}

/// The login of a worker. All logins have the same length, so that orders have the same size.
pub fn login(worker: u32) -> String {
    format!("customer-{worker:03}")
}
