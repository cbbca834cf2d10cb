//! A customer's requests to the public API: open an account, pay in, place orders, read the balance.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{retry::retry_until_definite, system::System};

/// Opens an account and pays in this number of whole units.
///
/// # Errors
/// If there is no definite response in time.
pub async fn register(system: &System, login: &str, balance: usize) -> Result<()> {
    let register = system.http.post(format!("{}/billing/register?login={login}", system.url));
    retry_until_definite("the registration", || register.try_clone(), &format!("{login}-register")).await?;
    refill(system, login, balance, "refill").await
}

/// Pays in this number of whole units, at most once for this name.
///
/// # Errors
/// As [`register`].
pub async fn refill(system: &System, login: &str, balance: usize, name: &str) -> Result<()> {
    let refill = system.http.post(format!("{}/billing/refill", system.url)).json(&json!({"login": login, "balance": balance}));
    let (status, response) = retry_until_definite("the refill", || refill.try_clone(), &format!("{login}-{name}")).await?;
    ensure!(status == 200, "the refill: {status} {response}");
    Ok(())
}

/// Places an order of this number of whole units, with this `Prefer` header if it is not empty.
/// Returns the status of the response and the order's number.
///
/// # Errors
/// As [`register`].
pub async fn place(system: &System, login: &str, number: usize, amount: usize, prefer: &str) -> Result<(u16, i64)> {
    place_for(system, login, login, number, amount, prefer).await
}

/// Places an order as [`place`] does. `buyer` pays for it, and `login` is notified.
///
/// # Errors
/// As [`register`].
pub async fn place_for(
    system: &System,
    login: &str,
    buyer: &str,
    number: usize,
    amount: usize,
    prefer: &str,
) -> Result<(u16, i64)> {
    let order = json!({"login": buyer, "e_mail": format!("{login}@example.com"), "id_cart": number, "amount": amount});
    let request = system.http.post(format!("{}/orders/", system.url)).json(&order);
    let request = if prefer.is_empty() { request } else { request.header("prefer", prefer) };
    let (status, response) = retry_until_definite("an order", || request.try_clone(), &format!("{login}-{number}")).await?;
    Ok((status, response["id"].as_i64().with_context(|| format!("a response without id: {status} {response}"))?))
}

/// Asserts that the account holds this number of whole units.
///
/// # Errors
/// If the balance differs. The error contains the balance.
pub async fn assert_balance(system: &System, login: &str, balance: usize) -> Result<()> {
    let account = system.http.get(format!("{}/billing/account/{login}", system.url)).send().await?.text().await?;
    let expected = format!(r#"{{"login":"{login}","balance":{balance}.0}}"#);
    ensure!(account == expected, "the account: {account} instead of {expected}");
    Ok(())
}
