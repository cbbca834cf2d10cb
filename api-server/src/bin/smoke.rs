//! The smoke test of a running installation, for `helm test`. It makes a customer's calls: one
//! order that can be paid, and one that cannot.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use orders_service::http_client;
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// How long an order may be undecided.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// Places one order that can be paid and one that cannot, and checks balance and messages.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// URL of the order service.
    #[arg(long, default_value = "http://arch.homework")]
    base_url: String,
}

struct ApiClient {
    http: Client,
    base_url: String,
}

impl ApiClient {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<(u16, Value)> {
        self.call_with_key(method, path, body.as_ref(), None).await
    }

    async fn call_with_key(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<String>,
    ) -> anyhow::Result<(u16, Value)> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base_url));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        let status = response.status().as_u16();
        let body = http_client::body(response, 1 << 20).await?;
        println!("{method} {path} -> {status} {}", String::from_utf8_lossy(&body));
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Places an order, and repeats the request under its key until the order is decided. Right after
    /// an upgrade or a crash, the operators may still be electing a leader.
    async fn place_order(&self, login: &str, amount: i64) -> anyhow::Result<(u16, Value)> {
        let order = json!({ "login": login, "e_mail": "smoke@example.com", "id_cart": 0, "amount": amount });
        let start = Instant::now();
        loop {
            let key = Some(format!("{login}-{amount}"));
            let (status, body) = self.call_with_key(Method::POST, "/orders/", Some(&order), key).await?;
            let is_decided = ![202, 503, 504].contains(&status);
            if is_decided || start.elapsed() > MAX_WAIT {
                return Ok((status, body));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = ApiClient {
        http: http_client::client(Duration::from_secs(20))?,
        base_url: args.base_url.trim_end_matches('/').to_owned(),
    };
    let login = format!("smoke-{}", uuid::Uuid::new_v4());

    let (status, _) = api.call(Method::POST, &format!("/billing/register?login={login}"), None).await?;
    ensure!(status == 200, "the account was not opened");
    let (status, account) = api.call(Method::POST, "/billing/refill", Some(json!({ "login": login, "balance": 900 }))).await?;
    ensure!(status == 200 && account["balance"] == 900.0, "the account was not refilled");

    let (status, order) = api.place_order(&login, 100).await?;
    ensure!(status == 200 && order["status"] == 1, "the order that can be paid was not paid");
    let (status, order) = api.place_order(&login, 1000).await?;
    ensure!(status == 400 && order["status"] == 0, "the order that cannot be paid was not refused");

    let (_, account) = api.call(Method::GET, &format!("/billing/account/{login}"), None).await?;
    ensure!(account["balance"] == 800.0, "the balance is not 800.00");
    let (_, messages) = api.call(Method::GET, &format!("/notify/log/{login}"), None).await?;
    ensure!(messages.as_array().is_some_and(|messages| messages.len() == 2), "the message log does not have two messages");

    println!("1 order paid, 1 order refused: the order service works");
    Ok(())
}
