//! Many faults at once.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use orders_crds::Outcome;
use serde_json::json;

use super::same;
use crate::{
    shop::Shop,
    workload::{SETTLE_LIMIT, mails_of, persist, settled},
};

const LOGIN: &str = "stormy";
const ORDERS: usize = 40;
const ONE_IN: u32 = 6;

/// Orders at once on one account that has enough for all but ten of them.
pub(super) async fn storm(shop: &Shop, seed: u64) -> Result<()> {
    shop.board.begin(Vec::new());
    let register = shop.http.post(format!("{}/billing/register?login={LOGIN}", shop.url));
    persist("the registration", || register.try_clone(), "register").await?;
    let balance = (ORDERS - 10) * 10;
    let refill = shop.http.post(format!("{}/billing/refill", shop.url)).json(&json!({"login": LOGIN, "balance": balance}));
    persist("the refill", || refill.try_clone(), "refill").await?;

    shop.board.storm(seed, ONE_IN);
    let place = async |number: usize| {
        let order = json!({"login": LOGIN, "e_mail": "stormy@example.com", "id_cart": number, "amount": 10});
        let request = shop.http.post(format!("{}/orders/", shop.url)).json(&order).header("prefer", "wait=1");
        let (status, answer) = persist("an order", || request.try_clone(), &format!("order-{number}")).await?;
        answer["id"].as_i64().with_context(|| format!("an answer without id: {status} {answer}"))
    };
    let ids = try_join_all((0..ORDERS).map(place)).await?;
    shop.board.calm();
    let faults = shop.board.fired();
    ensure!(faults > 0, "a storm without a fault");

    let orders = try_join_all(ids.iter().map(async |id| settled(shop, &format!("order-{id}")).await)).await?;
    shop.board.rest(std::time::Duration::from_millis(500), SETTLE_LIMIT).await?;
    println!("  {faults} faults in {} effects", shop.board.seen().len());
    let paid = orders.iter().filter(|order| order.outcome() == Outcome::Paid).count();
    same("paid orders", paid, ORDERS - 10)?;
    let account = shop.http.get(format!("{}/billing/account/{LOGIN}", shop.url)).send().await?.text().await?;
    same("the account", account, format!(r#"{{"login":"{LOGIN}","balance":0.0}}"#))?;
    for order in &orders {
        ensure!(!mails_of(shop, order).await?.is_empty(), "no mail about {:?}", order.metadata.name);
    }
    Ok(())
}
