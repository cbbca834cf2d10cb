//! A client that places orders as customers do: `POST /orders/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::load;
use crate::writer::login;

/// The time limit for a response, after which the measurement fails: the api-server
/// responds within twelve seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// The balance of an account: enough for a thousand orders a second for a whole day.
const BALANCE: u64 = 100_000_000;

/// The number of accounts that are opened concurrently.
const CONCURRENT_ACCOUNTS: u32 = 16;

/// Clients of the public API.
#[derive(Clone, Debug)]
pub struct Customers {
    http: reqwest::Client,
    /// The api-servers' URLs. Each client always uses the same one.
    urls: Arc<Vec<String>>,
    keyed: bool,
    undecided: Arc<AtomicU64>,
}

impl Customers {
    /// Creates customers of these api-servers. With `keyed`, each order has an `Idempotency-Key`.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(urls: Vec<String>, keyed: bool) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(LIMIT).build()?;
        Ok(Customers { http, urls: Arc::new(urls), keyed, undecided: Arc::default() })
    }

    /// Opens the accounts of this number of clients and pays money in.
    ///
    /// # Errors
    /// If billing fails.
    pub async fn open_accounts(&self, accounts: u32, name: fn(u32) -> String) -> Result<()> {
        let next = Arc::new(AtomicU64::new(0));
        let own = self.clone();
        load::run_all(CONCURRENT_ACCOUNTS, accounts as usize, move |_| {
            let (own, account) = (own.clone(), next.fetch_add(1, Ordering::Relaxed) as u32);
            async move { own.open_account(&name(account)).await }
        })
        .await?;
        Ok(())
    }

    async fn open_account(&self, login: &str) -> Result<()> {
        let base = &self.urls[0];
        let register = self.http.post(format!("{base}/billing/register?login={login}"));
        register.send().await?.error_for_status().context("an account was not opened")?;
        let refill = self.http.post(format!("{base}/billing/refill")).json(&json!({"login": login, "balance": BALANCE}));
        refill.send().await?.error_for_status().context("an account was not refilled")?;
        Ok(())
    }

    /// Places an order and returns the time until its response.
    ///
    /// # Errors
    /// If it is refused, or gets no response.
    pub async fn measure_order(&self, client: u32) -> Result<Duration> {
        let started = Instant::now();
        self.place_order(client).await?;
        Ok(started.elapsed())
    }

    /// Places an order and returns its number.
    ///
    /// # Errors
    /// If it is refused, or gets no response.
    pub async fn place_order(&self, client: u32) -> Result<i64> {
        let (login, url) = (login(client), &self.urls[client as usize % self.urls.len()]);
        let order = json!({"login": login, "e_mail": format!("{login}@example.com"), "id_cart": 0, "amount": 1});
        let mut request = self.http.post(format!("{url}/orders/")).json(&order);
        if self.keyed {
            request = request.header("Idempotency-Key", Uuid::new_v4().to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = response.text().await?;
        ensure!(status == 200 || status == 202, "the response to an order was {status}: {body}");
        self.undecided.fetch_add(u64::from(status == 202), Ordering::Relaxed);
        let body: Value = serde_json::from_str(&body)?;
        body["id"].as_i64().context("the response to an order has no id")
    }

    /// The number of orders whose response came before their outcome, since the last call.
    pub fn take_undecided(&self) -> f64 {
        self.undecided.swap(0, Ordering::Relaxed) as f64
    }
}
