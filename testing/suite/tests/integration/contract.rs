//! Tests of the public API's responses, byte for byte.

use anyhow::Result;
use reqwest::Method;
use serde_json::json;

use crate::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn the_bodies_of_the_contract_scenario_are_exact() -> Result<()> {
    let shop = Shop::start().await?;
    let register = shop.request(Method::POST, "/billing/register?login=Aurore56");
    shop.send(register).await?.assert(200, r#"{"login":"Aurore56","balance":0.0}"#);
    let refill = shop.post("/billing/refill", json!({"login": "Aurore56", "balance": 900})).await?;
    refill.assert(200, r#"{"login":"Aurore56","balance":900.0}"#);

    let order = |amount| json!({"login": "Aurore56", "e_mail": "Gage_Lind@gmail.com", "id_cart": 0, "amount": amount});
    let paid = shop.post("/orders/", order(100)).await?;
    let first = paid.id();
    paid.assert(200, &format!(r#"{{"id":{first},"status":1}}"#));
    assert!((1..=9_007_199_254_740_991).contains(&first));
    shop.get("/billing/account/Aurore56").await?.assert(200, r#"{"login":"Aurore56","balance":800.0}"#);

    let log = shop.get("/notify/log/Aurore56").await?;
    let message = &log.json()[0];
    let (id, dtime) = (&message["id"], message["dtime"].as_str().unwrap_or_default());
    assert!(is_utc_with_microseconds(dtime), "{dtime}");
    log.assert(200, &format!(r#"[{{"id":{id},"login":"Aurore56","email":"Gage_Lind@gmail.com","dtime":"{dtime}","text":"Заказ успешно оформлен","is_sended":true}}]"#));

    // This path has no trailing slash.
    let refused = shop.post("/orders", order(1000)).await?;
    refused.assert(400, &format!(r#"{{"id":{},"status":0}}"#, refused.id()));
    assert_ne!(refused.id(), first);
    shop.get("/billing/account/Aurore56").await?.assert(200, r#"{"login":"Aurore56","balance":800.0}"#);
    let messages = shop.messages("Aurore56").await?;
    let too_dear = "Недостаточно средств для оформления заказа. Текущий баланс: 800.0.  Сумма заказа: 1000.0 ";
    assert_eq!(messages, [("Заказ успешно оформлен".to_owned(), true), (too_dear.to_owned(), true)]);

    let mails = shop.inbox.messages_to("Gage_Lind@gmail.com").await?;
    assert_eq!(mails.len(), 2, "{mails:?}");
    Ok(())
}

fn is_utc_with_microseconds(dtime: &str) -> bool {
    let shape: String = dtime.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000000"
}

#[tokio::test(flavor = "multi_thread")]
async fn money_stays_exact() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("cents", json!(0)).await?;
    for _ in 0..10 {
        let refill = shop.request(Method::POST, "/billing/refill").header("content-type", "application/json");
        assert_eq!(shop.send(refill.body(r#"{"login":"cents","balance":0.1}"#)).await?.status, 200);
    }
    assert_eq!(shop.balance("cents").await?, "1.0", "ten times 0.1 is 1, not 0.9999999999999999");
    assert_eq!(shop.place_order("cents", json!(0.05)).await?.status, 200);
    assert_eq!(shop.balance("cents").await?, "0.95");
    assert_eq!(shop.place_order("cents", json!(0.96)).await?.status, 400);
    assert_eq!(shop.place_order("cents", json!(0.95)).await?.status, 200);
    assert_eq!(shop.balance("cents").await?, "0.0");
    Ok(())
}
