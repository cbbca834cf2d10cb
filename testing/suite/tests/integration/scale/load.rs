//! What both tests do with a shop: open it, order until it is answered, list
//! everything, audit.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orders_shop::{Interaction, StackOptions};
use orders_testbed::{Cluster, PATIENCE};
use reqwest::RequestBuilder;
use serde_json::Value;

use crate::shop::{Answer, Shop};

/// Within this time an order is answered, however often it has to be sent.
const ANSWERED: Duration = PATIENCE;

/// Within this time it is found out whether everything holds.
const AUDITED: Duration = Duration::from_secs(600);

/// Opens a shop with the programs of the directory that `PROGRAMS` names, or else
/// those beside the test.
pub async fn open(cluster: &Cluster, change: impl FnOnce(StackOptions) -> StackOptions) -> Result<Shop> {
    let programs = std::env::var_os("PROGRAMS").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    Shop::open_as(Interaction::Http, cluster, |options| change(StackOptions { programs, ..options })).await
}

/// The number that `variable` holds, or else this one.
pub fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Sends an order with its key, as `requests` has it the first, second … time, until
/// it is answered otherwise than by 503 or a broken connection, as docs/reference/api.md tells clients to.
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

/// All orders of the list, page by page, and the cursor of each page but the first.
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

/// Asserts that `orders-audit` finds this many orders and nothing wrong with them.
pub async fn audit(shop: &Shop, cluster: &Cluster, orders: usize) -> Result<()> {
    let audited = shop.stack.audit(cluster).run(&[], AUDITED).await?;
    assert_eq!(audited.exit_code, Some(0), "{audited:?}");
    assert!(audited.output.starts_with(&format!("{orders} orders (0 not decided yet)")), "{audited:?}");
    Ok(())
}
