//! Measures billing's charges per second, in comparison to the maximum rate of PostgreSQL.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use orders_shop::Database;
use orders_testbed::Postgres;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use crate::bench::Bench;
use crate::cost::{Side, measure};
use crate::environment::{Environment, EnvironmentOptions};
use crate::load;
use crate::progress::print_progress;

/// The table.
pub const TABLE: &str = "billing, 32 clients";

/// The row with the ratio of the two rates.
pub const RATIO: &str = "charges over pgbench's updates";

/// The column of many accounts.
pub const MANY: &str = "1000 accounts";

/// The column of one account.
pub const HOT: &str = "one account";

/// The number of clients of billing and of pgbench.
const CLIENTS: u32 = 32;

/// The number of accounts of billing and of pgbench.
const ACCOUNTS: u64 = 1000;

/// The time that pgbench may take in addition to its duration: to connect, and for its last transactions.
const PGBENCH_OVERHEAD: Duration = Duration::from_secs(30);

/// A table like billing's, without the rules of billing: each transaction has one statement.
const SETUP: &str = "CREATE TABLE accounts (login TEXT PRIMARY KEY, balance BIGINT NOT NULL CHECK (balance >= 0));
    INSERT INTO accounts SELECT 'account-' || lpad(n::text, 4, '0'), 10000000000 FROM generate_series(0, 999) n;";

/// Runs the section. Each round uses a new server; billing and pgbench alternate.
///
/// # Errors
/// If a process does not start or respond, or pgbench is missing.
pub async fn run(bench: &mut Bench) -> Result<()> {
    for round in 1..=bench.options.rounds {
        let name = format!("billing-{round}");
        let environment = bench.start(&name, Database::Postgres, EnvironmentOptions::default()).await?;
        measure_rates(bench, &environment, round).await.with_context(|| name.clone())?;
        bench.stop(&name, environment);
    }
    Ok(())
}

async fn measure_rates(bench: &mut Bench, environment: &Environment, round: u32) -> Result<()> {
    let postgres = environment.postgres.as_ref().context("billing is measured on PostgreSQL")?;
    let pgbench = postgres.program("pgbench")?;
    postgres.query(SETUP)?;
    environment.customers.open_accounts(ACCOUNTS as u32, |number| account(number.into())).await?;
    let token = std::fs::read_to_string(environment.stack.directory.join("operator-billing.token"))?;
    let seconds = bench.options.seconds;
    for (column, accounts) in [(MANY, ACCOUNTS), (HOT, 1)] {
        // The second side runs with a larger log or during a checkpoint, so the order alternates.
        let (charges, updates) = if round % 2 == 1 {
            let charges = measure_charges(bench, environment, &token, column, accounts).await?;
            (charges, measure_updates(&pgbench, postgres, &environment.stack.directory, accounts, seconds).await?)
        } else {
            let updates = measure_updates(&pgbench, postgres, &environment.stack.directory, accounts, seconds).await?;
            (measure_charges(bench, environment, &token, column, accounts).await?, updates)
        };
        print_progress(&format!("billing, {column}: {charges:.0} charges/s, pgbench {updates:.0}/s"));
        bench.report.add(TABLE, "pgbench: updates a second", column, updates);
        bench.report.add(TABLE, RATIO, column, charges / updates);
    }
    Ok(())
}

/// Measures charges per second, with the operator's requests.
async fn measure_charges(bench: &mut Bench, environment: &Environment, token: &str, column: &str, accounts: u64) -> Result<f64> {
    let (url, bearer) = (format!("{}/billing/withdraw", environment.stack.billing.url), format!("Bearer {}", token.trim()));
    let (http, next) = (environment.http.clone(), Arc::new(AtomicU64::new(0)));
    let work = move |_| {
        let login = account(next.fetch_add(1, Ordering::Relaxed) % accounts);
        let request = http.post(&url).header("Authorization", &bearer).header("Idempotency-Key", Uuid::new_v4().to_string());
        let request = request.json(&json!({"login": login, "balance": 1.0}));
        async move {
            let started = Instant::now();
            let body: Value = request.send().await?.error_for_status()?.json().await?;
            ensure!(body["outcome"] == "Charged", "the response to a charge was {body}");
            Ok(started.elapsed())
        }
    };
    // No work remains after the last response, since no order is placed.
    let measured = measure(environment, Side::Raw, load::run_closed_loop(CLIENTS, bench.options.duration(), work)).await?;
    let row = |name: &str| format!("billing: {name}");
    bench.report.add(TABLE, &row("charges a second"), column, measured.load.rate());
    for (name, share) in [("p50, ms", 0.5), ("p99, ms", 0.99)] {
        bench.report.add(TABLE, &row(name), column, measured.load.times.percentile(share));
    }
    for name in ["billing", "postgres"] {
        bench.report.add(TABLE, &row(&format!("CPU of {name}, ms a charge")), column, measured.cpu_of(name));
    }
    let name = "database: transactions that write";
    bench.report.add(TABLE, &row(&format!("{name}, a charge")), column, measured.count_of(name));
    Ok(measured.load.rate())
}

/// Measures single-statement updates per second with pgbench.
async fn measure_updates(pgbench: &Path, postgres: &Postgres, directory: &Path, accounts: u64, seconds: u64) -> Result<f64> {
    let script = directory.join(format!("update-{accounts}.sql"));
    std::fs::write(&script, update_script(accounts))?;
    let mut command = Command::new(pgbench);
    // The statements are prepared, as billing's are. There is no vacuum, since these are not pgbench's own tables.
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &CLIENTS.to_string(), "-T", &seconds.to_string(), "-f"]);
    command.arg(&script).arg(postgres.url()).stdin(Stdio::null()).kill_on_drop(true);
    let before = balances(postgres)?;
    let output = timeout(Duration::from_secs(seconds) + PGBENCH_OVERHEAD, command.output())
        .await
        .context("pgbench did not exit in time")??;
    if !output.status.success() {
        bail!("pgbench: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let output = String::from_utf8_lossy(&output.stdout);
    // An update that finds no account would be faster, but it changes nothing.
    let (updated, done) = (before - balances(postgres)?, number_after(&output, "number of transactions actually processed: ")?);
    ensure!(updated == done as i64, "pgbench made {done} transactions, which updated {updated} rows");
    number_after(&output, "tps = ")
}

fn balances(postgres: &Postgres) -> Result<i64> {
    Ok(postgres.query("SELECT sum(balance) FROM accounts")?.trim().parse()?)
}

fn update_script(accounts: u64) -> String {
    let padded = "'account-' || lpad((:number)::text, 4, '0')";
    format!(
        "\\set number random(0, {})\nUPDATE accounts SET balance = balance - 1 WHERE login = {padded} RETURNING balance;\n",
        accounts - 1
    )
}

/// The number after these words in pgbench's output.
fn number_after(output: &str, words: &str) -> Result<f64> {
    let number = output.lines().find_map(|line| line.strip_prefix(words)?.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("the output of pgbench does not contain \"{words}\": {output}"))
}

/// The login of an account.
fn account(number: u64) -> String {
    format!("account-{number:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_parsed_from_the_output_of_pgbench() {
        let output = "number of failed transactions: 0 (0.000%)\nlatency average = 9.1 ms\ntps = 3512.25 (without initial connection time)\n";
        assert_eq!(number_after(output, "tps = ").unwrap(), 3512.25);
        assert!(number_after("", "tps = ").is_err());
    }

    #[test]
    fn one_hot_account_is_the_first() {
        assert!(update_script(1).starts_with("\\set number random(0, 0)\n"));
        assert_eq!(account(7), "account-0007");
    }
}
