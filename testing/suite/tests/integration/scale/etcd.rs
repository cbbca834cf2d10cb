//! What the API server's store holds, as etcd itself says.

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use orders_testbed::Cluster;
use serde_json::{Value, json};

/// Where the API server keeps orders, of all namespaces.
pub const ORDERS: &str = "/registry/arch.homework/orders/";

/// Where it keeps Events.
pub const EVENTS: &str = "/registry/events/";

/// Everything that it keeps.
pub const ALL: &str = "/registry/";

pub struct Etcd {
    url: String,
    http: reqwest::Client,
}

/// What the store takes, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// What is in use.
    pub used: u64,
    /// The file, with the room that compaction left in it. The quota counts this.
    pub file: u64,
}

impl Etcd {
    pub fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Etcd { url: cluster.etcd_url()?, http: reqwest::Client::builder().no_proxy().build()? })
    }

    /// How many keys begin so.
    pub async fn keys(&self, prefix: &str) -> Result<usize> {
        let range = self.range(prefix, json!({"count_only": true})).await?;
        Ok(count(&range))
    }

    /// The bytes of a key and its value, on average over the first hundred that begin so.
    pub async fn bytes_a_key(&self, prefix: &str) -> Result<usize> {
        let range = self.range(prefix, json!({"limit": 100})).await?;
        let keys = range["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Four characters of Base64 are three bytes.
        let bytes = |text: &Value| text.as_str().map_or(0, |text| text.len() * 3 / 4);
        Ok(keys.iter().map(|key| bytes(&key["key"]) + bytes(&key["value"])).sum::<usize>() / keys.len().max(1))
    }

    pub async fn size(&self) -> Result<Size> {
        let text = self.http.get(format!("{}/metrics", self.url)).send().await?.error_for_status()?.text().await?;
        let bytes = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} is no metric"))?;
            Ok(line.trim().parse::<f64>()? as u64)
        };
        Ok(Size { used: bytes("etcd_mvcc_db_total_size_in_use_in_bytes ")?, file: bytes("etcd_mvcc_db_total_size_in_bytes ")? })
    }

    /// All keys from the prefix to the first that does not begin so, as the options have it.
    async fn range(&self, prefix: &str, mut options: Value) -> Result<Value> {
        let mut end = prefix.as_bytes().to_vec();
        // All of the prefixes end in a slash, which is no 0xff.
        *end.last_mut().context("an empty prefix")? += 1;
        options["key"] = json!(ByteString(prefix.into()));
        options["range_end"] = json!(ByteString(end));
        let response = self.http.post(format!("{}/v3/kv/range", self.url)).json(&options).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }
}

/// A number of 64 bits is a text in the JSON of protocol buffers, and a zero is left out.
fn count(range: &Value) -> usize {
    range["count"].as_str().and_then(|count| count.parse().ok()).unwrap_or_default()
}
