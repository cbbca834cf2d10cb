//! Helpers of the scale tests: start a shop, place orders until there is a response, list
//! all orders, run the audit.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orders_shop::{Interaction, StackOptions};
use orders_testbed::{Cluster, WAIT_TIMEOUT};
use reqwest::RequestBuilder;
use serde_json::Value;

use crate::shop::{Response, Shop};

/// The time limit for the response to an order, including repeated requests.
const RESPONSE_TIMEOUT: Duration = WAIT_TIMEOUT;

/// The time limit for an audit.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Starts a shop with the programs in the directory that the environment variable `PROGRAMS` names, or else with
/// those in the test's target directory.
pub async fn start(cluster: &Cluster, change: impl FnOnce(StackOptions) -> StackOptions) -> Result<Shop> {
    let programs = std::env::var_os("PROGRAMS").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    Shop::start_with_style(Interaction::Http, cluster, |options| change(StackOptions { programs, ..options })).await
}

/// The value of the environment variable `variable`, or else `default`.
pub fn read_number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Sends an order with its key until there is a response other than 503 and 504, as docs/reference/api.md requires of
/// clients. `requests` returns the request for the first, second … attempt.
pub async fn place_order_with_retries(shop: &Shop, key: &str, requests: impl Fn(usize) -> RequestBuilder) -> Result<Response> {
    let attempts = async {
        for attempt in 0.. {
            match shop.send(requests(attempt).header("idempotency-key", key)).await {
                Ok(response) if ![503, 504].contains(&response.status) => return response,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        unreachable!("there is always another attempt")
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, attempts).await.with_context(|| format!("no response to the order with the key {key}"))
}

/// All orders of the list, page by page, and the cursor of each page except the first.
pub async fn list_all(shop: &Shop) -> Result<(Vec<Value>, Vec<String>)> {
    let (mut orders, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let cursor = cursors.last().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = shop.get(&format!("/orders?limit=100{cursor}")).await?;
        ensure!(page.status == 200, "{page:?}");
        let mut page = page.json();
        orders.append(page["items"].as_array_mut().context("no items")?);
        match page["next_cursor"].as_str() {
            Some(next) => cursors.push(next.to_owned()),
            None => return Ok((orders, cursors)),
        }
    }
}

/// Asserts that `orders-audit` finds this number of orders and no violation.
pub async fn assert_audit_passes(shop: &Shop, cluster: &Cluster, orders: usize) -> Result<()> {
    let result = shop.stack.audit(cluster).run(&[], AUDIT_TIMEOUT).await?;
    assert_eq!(result.exit_code, Some(0), "{result:?}");
    assert!(result.output.starts_with(&format!("{orders} orders (0 not decided yet)")), "{result:?}");
    Ok(())
}
