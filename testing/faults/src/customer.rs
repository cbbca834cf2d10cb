//! A customer's requests to the public API: open an account, pay in, place orders, read the balance.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{persist::persist, shop::Shop};

/// Opens an account and pays in this number of whole units.
///
/// # Errors
/// If there is no definite response in time.
pub async fn register(shop: &Shop, login: &str, balance: usize) -> Result<()> {
    let register = shop.http.post(format!("{}/billing/register?login={login}", shop.url));
    persist("the registration", || register.try_clone(), &format!("{login}-register")).await?;
    refill(shop, login, balance, "refill").await
}

/// Pays in this number of whole units, at most once for this name.
///
/// # Errors
/// As [`register`].
pub async fn refill(shop: &Shop, login: &str, balance: usize, name: &str) -> Result<()> {
    let refill = shop.http.post(format!("{}/billing/refill", shop.url)).json(&json!({"login": login, "balance": balance}));
    let (status, answer) = persist("the refill", || refill.try_clone(), &format!("{login}-{name}")).await?;
    ensure!(status == 200, "the refill: {status} {answer}");
    Ok(())
}

/// Places an order of this number of whole units, with this `Prefer` header if it is not empty.
/// Returns the status of the response and the order's number.
///
/// # Errors
/// As [`register`].
pub async fn place(shop: &Shop, login: &str, number: usize, amount: usize, prefer: &str) -> Result<(u16, i64)> {
    place_for(shop, login, login, number, amount, prefer).await
}

/// Places an order as [`place`] does. `buyer` pays for it, and `login` is notified.
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

/// Asserts that the account holds this number of whole units.
///
/// # Errors
/// If the balance differs. The error contains the balance.
pub async fn assert_balance(shop: &Shop, login: &str, balance: usize) -> Result<()> {
    let account = shop.http.get(format!("{}/billing/account/{login}", shop.url)).send().await?.text().await?;
    let expected = format!(r#"{{"login":"{login}","balance":{balance}.0}}"#);
    ensure!(account == expected, "the account: {account} instead of {expected}");
    Ok(())
}
