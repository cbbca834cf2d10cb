//! Reads the number of keys and the size of the API server's store from etcd.

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use orders_testbed::Cluster;
use serde_json::{Value, json};

/// The key prefix of orders, in all namespaces.
pub const ORDERS: &str = "/registry/arch.homework/orders/";

/// The key prefix of Events.
pub const EVENTS: &str = "/registry/events/";

/// The key prefix of all objects.
pub const ALL: &str = "/registry/";

pub struct Etcd {
    url: String,
    http: reqwest::Client,
}

/// The size of the store, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The size in use.
    pub used: u64,
    /// The size of the file, including space that compaction freed. etcd's quota applies to this size.
    pub file: u64,
}

impl Etcd {
    pub fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Etcd { url: cluster.etcd_url()?, http: reqwest::Client::builder().no_proxy().build()? })
    }

    /// The number of keys with this prefix.
    pub async fn count_keys(&self, prefix: &str) -> Result<usize> {
        let range = self.range(prefix, json!({"count_only": true})).await?;
        Ok(count(&range))
    }

    /// The average size of a key and its value in bytes, over the first hundred keys with this prefix.
    pub async fn average_key_bytes(&self, prefix: &str) -> Result<usize> {
        let range = self.range(prefix, json!({"limit": 100})).await?;
        let keys = range["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Four characters of Base64 are three bytes.
        let bytes = |text: &Value| text.as_str().map_or(0, |text| text.len() * 3 / 4);
        Ok(keys.iter().map(|key| bytes(&key["key"]) + bytes(&key["value"])).sum::<usize>() / keys.len().max(1))
    }

    pub async fn read_size(&self) -> Result<Size> {
        let text = self.http.get(format!("{}/metrics", self.url)).send().await?.error_for_status()?.text().await?;
        let bytes = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} is no metric"))?;
            Ok(line.trim().parse::<f64>()? as u64)
        };
        Ok(Size { used: bytes("etcd_mvcc_db_total_size_in_use_in_bytes ")?, file: bytes("etcd_mvcc_db_total_size_in_bytes ")? })
    }

    /// Reads the range of keys with this prefix, with these options.
    async fn range(&self, prefix: &str, mut options: Value) -> Result<Value> {
        let mut end = prefix.as_bytes().to_vec();
        // All prefixes end in a slash and not in 0xff, so the last byte can be incremented.
        *end.last_mut().context("an empty prefix")? += 1;
        options["key"] = json!(ByteString(prefix.into()));
        options["range_end"] = json!(ByteString(end));
        let response = self.http.post(format!("{}/v3/kv/range", self.url)).json(&options).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }
}

/// The count of a range. In the JSON of protocol buffers, a 64-bit number is a string, and zero is omitted.
fn count(range: &Value) -> usize {
    range["count"].as_str().and_then(|count| count.parse().ok()).unwrap_or_default()
}
