//! Tests of closing and refunding charges over HTTP: a forbidden request gets a clear problem and changes no
//! balance.

use anyhow::Result;
use orders_testbed::service_account_token;
use reqwest::Method;
use serde_json::{Value, json};

use crate::shop::{Response, Shop};

/// A client of billing with the operator's credentials.
pub struct Operator<'a> {
    shop: &'a Shop,
    token: String,
}

impl<'a> Operator<'a> {
    pub async fn new(shop: &'a Shop) -> Result<Self> {
        let file = shop.directory.path().join("test.token");
        service_account_token(&shop.client, &shop.stack.namespace, "orders-operator", "orders-billing", &file).await?;
        Ok(Operator { shop, token: std::fs::read_to_string(&file)? })
    }

    pub async fn send(&self, method: Method, path: &str, key: Option<&str>, body: &str) -> Result<Response> {
        let url = format!("{}{path}", self.shop.stack.billing.url);
        let request = self.shop.http.request(method, url).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        self.shop.send(key.iter().fold(request, |request, key| request.header("idempotency-key", *key))).await
    }

    async fn withdraw(&self, key: &str, login: &str, amount: Value) -> Result<Response> {
        let body = json!({"login": login, "balance": amount}).to_string();
        self.send(Method::POST, "/billing/withdraw", Some(key), &body).await
    }

    async fn close(&self, key: &str, login: &str, amount: Value) -> Result<Response> {
        let body = json!({"login": login, "balance": amount}).to_string();
        self.send(Method::POST, &format!("/billing/charges/{key}/close"), None, &body).await
    }

    /// Requests a refund. The amount is inserted into the body without changes.
    async fn refund(&self, key: &str, charge: &str, login: &str, amount: &str) -> Result<Response> {
        let body = format!(r#"{{"charge":"{charge}","login":"{login}","balance":{amount}}}"#);
        self.send(Method::POST, "/billing/refund", Some(key), &body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_refund_is_refused_and_changes_no_balance() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("rita", json!(500)).await?;
    shop.open_account("otto", json!(500)).await?;
    let operator = Operator::new(&shop).await?;
    assert_eq!(operator.withdraw("paid", "rita", json!(100)).await?.json()["outcome"], "Charged");
    assert_eq!(operator.withdraw("dear", "rita", json!(5000)).await?.json()["outcome"], "InsufficientFunds");
    assert_eq!(operator.close("closed", "rita", json!(5)).await?.json()["outcome"], "Closed");
    let most = i64::MAX.to_string();
    for (case, charge, login, amount, status) in [
        ("unknown key", "nothing", "rita", "10", 404),
        ("another customer's charge", "paid", "otto", "10", 404),
        ("nobody's charge", "paid", "nobody", "10", 404),
        ("a refused charge", "dear", "rita", "10", 409),
        ("a closed charge", "closed", "rita", "5", 409),
        ("more than the charge", "paid", "rita", "100.01", 422),
        ("nothing", "paid", "rita", "0", 422),
        ("less than nothing", "paid", "rita", "-1", 422),
        ("a third decimal", "paid", "rita", "1.001", 422),
        ("the largest i64", "paid", "rita", &most, 422),
        ("the largest i64 of minor units", "paid", "rita", "92233720368547758.07", 422),
        ("beyond any i64", "paid", "rita", "92233720368547758070000", 422),
        ("the smallest i64", "paid", "rita", "-9223372036854775808", 422),
        ("a text", "paid", "rita", "\"10\"", 422),
    ] {
        let response = operator.refund("refund", charge, login, amount).await?;
        assert_eq!(response.status, status, "{case}: {response:?}");
        response.assert_problem(status);
        assert_eq!(shop.balance("rita").await?, "400.0", "{case}");
        assert_eq!(shop.balance("otto").await?, "500.0", "{case}");
    }
    let no_key = operator.send(Method::POST, "/billing/refund", None, r#"{"charge":"paid","login":"rita","balance":1}"#).await?;
    no_key.assert_problem(400);

    assert_eq!(operator.refund("refund", "paid", "rita", "60").await?.status, 200);
    let again = operator.refund("refund", "paid", "rita", "60").await?;
    assert_eq!((again.status, again.json()["repeated"].as_bool()), (200, Some(true)), "the first outcome");
    operator.refund("refund", "paid", "rita", "10").await?.assert_problem(422);
    operator.refund("another", "paid", "rita", "40.01").await?.assert_problem(422);
    assert_eq!(shop.balance("rita").await?, "460.0");
    assert_eq!(operator.refund("another", "paid", "rita", "40").await?.status, 200, "the remaining amount");
    operator.refund("third", "paid", "rita", "0.01").await?.assert_problem(422);
    assert_eq!(shop.balance("rita").await?, "500.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_closed_only_with_its_own_amount_and_customer() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("rita", json!(500)).await?;
    shop.open_account("otto", json!(500)).await?;
    let operator = Operator::new(&shop).await?;
    let unknown = operator.send(Method::GET, "/billing/charges/unknown", None, "").await?;
    unknown.assert_problem(404);

    assert_eq!(operator.close("late", "rita", json!(100)).await?.json()["outcome"], "Closed");
    assert_eq!(operator.withdraw("late", "rita", json!(100)).await?.json()["outcome"], "Closed", "a closed charge is never made");
    assert_eq!(operator.withdraw("paid", "rita", json!(100)).await?.json()["outcome"], "Charged");
    assert_eq!(operator.close("paid", "rita", json!(100)).await?.json()["outcome"], "Charged", "it was charged");
    for (case, key, login, amount, status) in [
        ("another amount", "paid", "rita", json!(99), 422),
        ("another customer", "paid", "otto", json!(100), 422),
        ("another amount of a closed one", "late", "rita", json!(1), 422),
        ("no amount", "new", "rita", json!(0), 422),
        ("less than nothing", "new", "rita", json!(-1), 422),
        ("the largest i64", "new", "rita", json!(i64::MAX), 422),
        ("a key with a space", "a%20b", "rita", json!(1), 400),
    ] {
        let response = operator.close(key, login, amount).await?;
        assert_eq!(response.status, status, "{case}: {response:?}");
        response.assert_problem(status);
    }
    assert_eq!(operator.withdraw("new", "rita", json!(1)).await?.json()["outcome"], "Charged", "no charge was closed by mistake");
    assert_eq!((shop.balance("rita").await?, shop.balance("otto").await?), ("399.0".to_owned(), "500.0".to_owned()));
    Ok(())
}
