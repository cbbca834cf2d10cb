//! What a customer does through the public API: opens an account, pays in, orders, looks.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{shop::Shop, workload::persist};

/// Opens an account and pays in so many whole units.
///
/// # Errors
/// If there is no definite answer in time.
pub async fn register(shop: &Shop, login: &str, balance: usize) -> Result<()> {
    let register = shop.http.post(format!("{}/billing/register?login={login}", shop.url));
    persist("the registration", || register.try_clone(), &format!("{login}-register")).await?;
    refill(shop, login, balance, "refill").await
}

/// Pays in so many whole units, once for this name.
///
/// # Errors
/// As [`register`].
pub async fn refill(shop: &Shop, login: &str, balance: usize, name: &str) -> Result<()> {
    let refill = shop.http.post(format!("{}/billing/refill", shop.url)).json(&json!({"login": login, "balance": balance}));
    let (status, answer) = persist("the refill", || refill.try_clone(), &format!("{login}-{name}")).await?;
    ensure!(status == 200, "the refill: {status} {answer}");
    Ok(())
}

/// An order of so many whole units, with this `Prefer` header if it is not empty;
/// the answer's status and the order's number.
///
/// # Errors
/// As [`register`].
pub async fn place(shop: &Shop, login: &str, number: usize, amount: usize, prefer: &str) -> Result<(u16, i64)> {
    place_for(shop, login, login, number, amount, prefer).await
}

/// The same at the cost of `buyer`, and told to `login`.
///
/// # Errors
/// As [`register`].
pub async fn place_for(shop: &Shop, login: &str, buyer: &str, number: usize, amount: usize, prefer: &str) -> Result<(u16, i64)> {
    let order = json!({"login": buyer, "e_mail": format!("{login}@example.com"), "id_cart": number, "amount": amount});
    let request = shop.http.post(format!("{}/orders/", shop.url)).json(&order);
    let request = if prefer.is_empty() { request } else { request.header("prefer", prefer) };
    let (status, answer) = persist("an order", || request.try_clone(), &format!("{login}-{number}")).await?;
    Ok((status, answer["id"].as_i64().with_context(|| format!("an answer without id: {status} {answer}"))?))
}

/// Fails unless the account holds so many whole units.
///
/// # Errors
/// With what it holds.
pub async fn assert_balance(shop: &Shop, login: &str, balance: usize) -> Result<()> {
    let account = shop.http.get(format!("{}/billing/account/{login}", shop.url)).send().await?.text().await?;
    let expected = format!(r#"{{"login":"{login}","balance":{balance}.0}}"#);
    ensure!(account == expected, "the account: {account} instead of {expected}");
    Ok(())
}
