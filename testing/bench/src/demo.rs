//! Measures a running demo, for docs/reference/measurements.md.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::processes::mebibytes;
use crate::statistics::Times;

/// The time limit for one response. If it passes, the measurement fails.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The prefixes of the names of the services' processes.
const SERVICES: [&str; 5] = ["orders-api-server", "orders-operator", "orders-billing", "orders-notify", "orders-archive"];

/// Places `orders` orders one after the other at `base_url`. Prints the times
/// from POST to response, and then the memory of the services' processes.
///
/// # Errors
/// If the service does not respond, or an order is not paid.
pub async fn run(base_url: &str, orders: u32) -> Result<()> {
    let client = reqwest::Client::builder().timeout(RESPONSE_TIMEOUT).build()?;
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
    let login = format!("measure-{since}");
    client
        .post(format!("{base_url}/billing/register?login={login}"))
        .send()
        .await
        .context("cannot reach the demo; does it run?")?
        .error_for_status()?;
    let refill = json!({"login": login, "balance": orders});
    client.post(format!("{base_url}/billing/refill")).json(&refill).send().await?.error_for_status()?;

    let order = json!({"login": login, "e_mail": "measure@example.com", "id_cart": 0, "amount": 1});
    println!("placing {orders} orders as {login}, one after the other …");
    let mut times = Times::default();
    for _ in 0..orders {
        let started = Instant::now();
        let response = client.post(format!("{base_url}/orders/")).json(&order).send().await?;
        ensure!(response.status() == 200, "the response to an order was {}", response.status());
        response.bytes().await?;
        times.record(started.elapsed());
    }
    println!(
        "POST to response, one client, {orders} orders: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        times.percentile(0.5),
        times.percentile(0.99),
        times.percentile(1.0)
    );
    println!("memory (resident, of each process):");
    for (name, resident) in read_memory()? {
        println!("  {name:18} {resident:6.1} MiB");
    }
    println!("the orders are not deleted; to delete them: kubectl delete orders -n shop --field-selector spec.login={login}");
    Ok(())
}

/// Name and resident memory, in MiB, of each running process of a service.
fn read_memory() -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        // A process may exit while its files are read.
        let (Ok(command), Ok(status)) = (fs::read(path.join("cmdline")), fs::read_to_string(path.join("status"))) else {
            continue;
        };
        let program = String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let Some(name) = program.rsplit('/').next().filter(|name| SERVICES.contains(name)) else { continue };
        found.push((name.to_owned(), mebibytes(&status, "VmRSS:")));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}
