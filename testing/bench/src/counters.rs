//! The costs of an order in the API server, etcd and PostgreSQL, from these servers' own counters.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use kube::Client;
use orders_testbed::Postgres;
use tokio::time::timeout;

use crate::exposition::sum;

/// The time limit for a request of metrics: the API server has thousands of series.
const LIMIT: Duration = Duration::from_secs(20);

/// The idle time after which PostgreSQL's backends report their statistics (PGSTAT_IDLE_INTERVAL, 10 s).
const REPORTED_AFTER: Duration = Duration::from_millis(10_500);

/// The server from which a counter is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    ApiServer,
    Etcd,
}

/// A counter: its meaning, its source, the metric, and sets of labels. A series counts if it has all labels of any set.
type Counter = (&'static str, Source, &'static str, &'static [&'static [&'static str]]);

const GROUP: &str = "group=\"arch.homework\"";
const ORDERS: &str = "resource=\"orders\"";

/// The row of the report with the creates.
pub const CREATES: &str = "requests: create order";
/// The row with the status writes.
pub const STATUS_WRITES: &str = "requests: patch status";
/// The row with all other writes of an order, except its deletion.
pub const OTHER_WRITES: &str = "requests: other writes of orders";
/// The row with the deletions.
pub const REMOVALS: &str = "requests: delete order";

/// The counters. Requests count regardless of their response.
const COUNTERS: [Counter; 12] = [
    (CREATES, Source::ApiServer, "apiserver_request_total", &[&[GROUP, ORDERS, "verb=\"POST\""]]),
    (
        STATUS_WRITES,
        Source::ApiServer,
        "apiserver_request_total",
        &[
            &[GROUP, ORDERS, "subresource=\"status\"", "verb=\"PATCH\""],
            &[GROUP, ORDERS, "subresource=\"status\"", "verb=\"APPLY\""],
        ],
    ),
    (
        OTHER_WRITES,
        Source::ApiServer,
        "apiserver_request_total",
        &[
            &[GROUP, ORDERS, "subresource=\"\"", "verb=\"PATCH\""],
            &[GROUP, ORDERS, "subresource=\"\"", "verb=\"APPLY\""],
            &[GROUP, ORDERS, "verb=\"PUT\""],
        ],
    ),
    (REMOVALS, Source::ApiServer, "apiserver_request_total", &[&[GROUP, ORDERS, "verb=\"DELETE\""]]),
    ("requests: create event", Source::ApiServer, "apiserver_request_total", &[&["resource=\"events\"", "verb=\"POST\""]]),
    (
        "requests: get or list orders",
        Source::ApiServer,
        "apiserver_request_total",
        &[&[GROUP, ORDERS, "verb=\"GET\""], &[GROUP, ORDERS, "verb=\"LIST\""]],
    ),
    (
        "bytes in bodies of writes",
        Source::ApiServer,
        "apiserver_request_body_size_bytes_sum",
        &[&[ORDERS], &["resource=\"events\""]],
    ),
    ("bytes to watchers of orders", Source::ApiServer, "apiserver_watch_events_sizes_sum", &[&[GROUP, ORDERS]]),
    ("etcd: puts", Source::Etcd, "etcd_mvcc_put_total", &[&[]]),
    ("etcd: bytes from clients", Source::Etcd, "etcd_network_client_grpc_received_bytes_total", &[&[]]),
    ("etcd: bytes into the log", Source::Etcd, "etcd_disk_wal_write_bytes_total", &[&[]]),
    ("etcd: fsyncs of the log", Source::Etcd, "etcd_disk_wal_fsync_duration_seconds_count", &[&[]]),
];

/// The values of all counters at one moment, by their meaning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts(pub BTreeMap<&'static str, f64>);

impl Counts {
    /// The increases since an earlier moment.
    pub fn since(&self, before: &Counts) -> Counts {
        let earlier = |name: &str| before.0.get(name).copied().unwrap_or_default();
        Counts(self.0.iter().map(|(name, count)| (*name, count - earlier(name))).collect())
    }

    /// The value of one counter; zero if it does not exist.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn read(api_server: &str, etcd: &str) -> Self {
        let value = |(_, source, metric, sets): &Counter| -> f64 {
            let text = if *source == Source::Etcd { etcd } else { api_server };
            sets.iter().map(|labels| sum(text, metric, labels)).sum()
        };
        Counts(COUNTERS.iter().map(|counter| (counter.0, value(counter))).collect())
    }
}

/// The sources of the counters.
pub struct Counters<'a> {
    /// The client of the API server.
    pub client: &'a Client,
    /// The HTTP client for etcd's metrics.
    pub http: &'a reqwest::Client,
    /// The URL of etcd.
    pub etcd: String,
    /// The databases' server, if it has counters.
    pub postgres: Option<&'a Postgres>,
}

impl Counters<'_> {
    /// Reads all counters.
    ///
    /// # Errors
    /// If one of the servers does not respond.
    pub async fn read(&self) -> Result<Counts> {
        let request = Request::get("/metrics").body(Vec::new())?;
        let api_server = timeout(LIMIT, self.client.request_text(request)).await.context("metrics of kube-apiserver")??;
        let etcd = self.http.get(format!("{}/metrics", self.etcd)).send().await.context("metrics of etcd")?;
        let etcd = etcd.error_for_status()?.text().await?;
        let mut counts = Counts::read(&api_server, &etcd);
        if let Some(postgres) = self.postgres {
            let commits =
                "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = ANY('{billing,notify,archive}')";
            counts.0.insert("database: transactions", number(postgres, commits)?);
            // Transactions that only read get no id, so this number is exact at any time.
            counts.0.insert("database: transactions that write", postgres.written_transactions()? as f64);
            counts
                .0
                .insert("database: bytes into the log", number(postgres, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")?);
        }
        Ok(counts)
    }

    /// Waits until the counters include all finished work.
    pub async fn wait_until_reported(&self) {
        if self.postgres.is_some() {
            tokio::time::sleep(REPORTED_AFTER).await;
        }
    }
}

fn number(postgres: &Postgres, sql: &str) -> Result<f64> {
    let text = postgres.query(sql)?;
    text.trim().parse().with_context(|| format!("{sql}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_distinguished_by_verb_and_subresource() {
        let line = |verb: &str, resource: &str, subresource: &str, group: &str, count: u32| {
            format!(
                "apiserver_request_total{{code=\"200\",group=\"{group}\",resource=\"{resource}\",subresource=\"{subresource}\",verb=\"{verb}\"}} {count}\n"
            )
        };
        let api_server = [
            line("POST", "orders", "", "arch.homework", 5),
            line("PATCH", "orders", "status", "arch.homework", 4),
            line("PATCH", "orders", "", "arch.homework", 1),
            line("POST", "events", "", "events.k8s.io", 8),
            line("POST", "orders", "", "acme.cert-manager.io", 100),
            line("GET", "orders", "", "arch.homework", 2),
        ]
        .concat();
        let counts = Counts::read(&api_server, "etcd_mvcc_put_total 17\n");
        let of = |name: &str| counts.get(name);
        assert_eq!((of(CREATES), of(STATUS_WRITES), of(OTHER_WRITES), of(REMOVALS)), (5.0, 4.0, 1.0, 0.0));
        assert_eq!((of("requests: create event"), of("requests: get or list orders"), of("etcd: puts")), (8.0, 2.0, 17.0));
        let later = Counts::read(&api_server.replace(" 5\n", " 9\n"), "");
        assert_eq!(later.since(&counts).get(CREATES), 4.0);
    }
}
