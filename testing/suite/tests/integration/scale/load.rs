//! Helpers of the scale tests: open a shop, place orders until there is a response, list
//! all orders, run the audit.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orders_shop::{Interaction, StackOptions};
use orders_testbed::{Cluster, PATIENCE};
use reqwest::RequestBuilder;
use serde_json::Value;

use crate::shop::{Answer, Shop};

/// The time limit for the response to an order, including repeated requests.
const ANSWERED: Duration = PATIENCE;

/// The time limit for an audit.
const AUDITED: Duration = Duration::from_secs(600);

/// Opens a shop with the programs in the directory that the environment variable `PROGRAMS` names, or else with
/// those in the test's target directory.
pub async fn open(cluster: &Cluster, change: impl FnOnce(StackOptions) -> StackOptions) -> Result<Shop> {
    let programs = std::env::var_os("PROGRAMS").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    Shop::open_as(Interaction::Http, cluster, |options| change(StackOptions { programs, ..options })).await
}

/// The value of the environment variable `variable`, or else `otherwise`.
pub fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Sends an order with its key until there is a response other than 503, as docs/reference/api.md requires of
/// clients. `requests` returns the request for the first, second … attempt.
pub async fn order_surely(shop: &Shop, key: &str, requests: impl Fn(usize) -> RequestBuilder) -> Result<Answer> {
    let attempts = async {
        for attempt in 0.. {
            match shop.send(requests(attempt).header("idempotency-key", key)).await {
                Ok(answer) if answer.status != 503 => return answer,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        unreachable!("there is always another attempt")
    };
    tokio::time::timeout(ANSWERED, attempts).await.with_context(|| format!("no answer to the order with the key {key}"))
}

/// All orders of the list, page by page, and the cursor of each page except the first.
pub async fn everything(shop: &Shop) -> Result<(Vec<Value>, Vec<String>)> {
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
pub async fn audit(shop: &Shop, cluster: &Cluster, orders: usize) -> Result<()> {
    let audited = shop.stack.audit(cluster).run(&[], AUDITED).await?;
    assert_eq!(audited.exit_code, Some(0), "{audited:?}");
    assert!(audited.output.starts_with(&format!("{orders} orders (0 not decided yet)")), "{audited:?}");
    Ok(())
}
