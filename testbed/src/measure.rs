//! Figures of a running demo, for docs/measurements.md.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

/// How long one answer may take before the measurement is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The processes of a service, by the start of their names.
const SERVICES: [&str; 5] = ["orders-api-server", "orders-operator", "orders-billing", "orders-notify", "orders-archive"];

/// Places `orders` orders one after the other at `base_url` and prints the time
/// from each POST to its answer, then the memory of the services' processes.
///
/// # Errors
/// When the service does not answer, or an order is not paid.
pub async fn run(base_url: &str, orders: usize) -> Result<()> {
    let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).build()?;
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
    let login = format!("measure-{since}");
    client
        .post(format!("{base_url}/billing/register?login={login}"))
        .send()
        .await
        .context("is the demo up?")?
        .error_for_status()?;
    let refill = json!({"login": login, "balance": orders});
    client.post(format!("{base_url}/billing/refill")).json(&refill).send().await?.error_for_status()?;

    let order = json!({"login": login, "e_mail": "measure@example.com", "id_cart": 0, "amount": 1});
    println!("placing {orders} orders as {login}, one after the other …");
    let mut times = Vec::with_capacity(orders);
    for _ in 0..orders {
        let started = Instant::now();
        let response = client.post(format!("{base_url}/orders/")).json(&order).send().await?;
        ensure!(response.status() == 200, "an order was answered {}", response.status());
        response.bytes().await?;
        times.push(started.elapsed());
    }
    times.sort();
    println!(
        "POST to answer, one client, {orders} orders: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0)
    );
    println!("memory (resident, of each process):");
    for (name, kibibytes) in memory()? {
        println!("  {name:18} {:6.1} MiB", kibibytes as f64 / 1024.0);
    }
    println!("the orders stay; to delete them: kubectl delete orders -n shop --field-selector spec.login={login}");
    Ok(())
}

/// Name and resident size, in KiB, of each running process of a service.
fn memory() -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        // A process may end while it is looked at.
        let (Ok(command), Ok(status)) = (fs::read(path.join("cmdline")), fs::read_to_string(path.join("status"))) else {
            continue;
        };
        let program = String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let Some(name) = program.rsplit('/').next().filter(|name| SERVICES.contains(name)) else { continue };
        found.push((name.to_owned(), resident(&status)));
    }
    found.sort();
    Ok(found)
}

/// The resident size in KiB that a process's `/proc/<pid>/status` names.
pub(crate) fn resident(status: &str) -> u64 {
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// What this share of the times, which are sorted, does not exceed, in milliseconds.
pub(crate) fn percentile(times: &[Duration], share: f64) -> f64 {
    times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0
}
