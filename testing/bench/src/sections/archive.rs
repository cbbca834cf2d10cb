//! The latency of archive queries, for several sizes of the archive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Request;
use kube::api::{Api, ListParams};
use orders_crds::Order;
use serde_json::Value;
use sqlx::{AnyConnection, Connection as _};

use orders_shop::Database;

use crate::bench::Bench;
use crate::environment::{Environment, EnvironmentOptions};
use crate::load;
use crate::progress::print_progress;

/// The number of rows that one statement writes. It is limited to keep the log small and to let other statements run.
const ROWS_PER_STATEMENT: u64 = 20_000;

/// The duration for which each query is repeated. Its requests run one after the other.
const QUERY_DURATION: Duration = Duration::from_secs(2);

/// The creation time of the first row's order, in microseconds since 1970. Each further order is one second later.
const BEGINNING: u64 = 1_700_000_000_000_000;

/// The number of logins. With a million rows, each has a thousand orders.
const LOGINS: u64 = 1000;

/// Inserts rows like those of the archive. One order in twenty is refused.
const POSTGRES: &str = "INSERT INTO orders
    SELECT gen_random_uuid()::text, $1, 'archived-' || n, n, 'customer-' || (n % 1000), 100,
        CASE WHEN n % 20 = 0 THEN 'InsufficientFunds' ELSE 'Paid' END,
        1700000000000000 + n * 1000000, n, 1700000000000000 + n * 1000000, $2
    FROM generate_series($3::bigint, $4::bigint) n";

/// The statement for SQLite.
const SQLITE: &str = "WITH RECURSIVE numbers(n) AS (SELECT $3 UNION ALL SELECT n + 1 FROM numbers WHERE n < $4)
    INSERT INTO orders
    SELECT lower(hex(randomblob(16))), $1, 'archived-' || n, n, 'customer-' || (n % 1000), 100,
        CASE WHEN n % 20 = 0 THEN 'InsufficientFunds' ELSE 'Paid' END,
        1700000000000000 + n * 1000000, n, 1700000000000000 + n * 1000000, $2
    FROM numbers";

/// Runs the section. It starts one environment for each database, adds rows step by step, and repeats the queries in rounds.
///
/// # Errors
/// If a process does not start or respond.
pub async fn run(bench: &mut Bench) -> Result<()> {
    for database in bench.options.databases.clone() {
        let name = format!("archive-{database}");
        let environment = bench.start(&name, database, EnvironmentOptions::default()).await?;
        let result = measure_by_size(bench, &environment, database).await;
        result.with_context(|| name.clone())?;
        bench.stop(&name, environment);
    }
    Ok(())
}

async fn measure_by_size(bench: &mut Bench, environment: &Environment, database: Database) -> Result<()> {
    let table = format!("archive, {database}");
    let url = match (&environment.postgres, database) {
        (Some(postgres), Database::Postgres) => archive_url(&postgres.url()),
        _ => format!("sqlite://{}", environment.stack.directory.join("archive.db").display()),
    };
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&url).await?;
    let resource = read_finished_order(environment).await?;
    // The archive also has the hundred orders of the warm-up, which are newer.
    let mut rows = 0;
    for target in bench.options.rows.clone() {
        let started = Instant::now();
        while rows < target {
            let last = target.min(rows + ROWS_PER_STATEMENT);
            let sql = if database == Database::Postgres { POSTGRES } else { SQLITE };
            let insert = sqlx::query(sql).bind(&environment.stack.namespace).bind(&resource);
            insert.bind(rows as i64).bind(last as i64 - 1).execute(&mut connection).await?;
            rows = last;
        }
        if database == Database::Postgres {
            // PostgreSQL runs ANALYZE automatically after a while. For SQLite, the statistics are part of the archive's schema.
            sqlx::query("ANALYZE orders").execute(&mut connection).await?;
        }
        print_progress(&format!("{table}: {rows} rows, the last of them in {:.0} s", started.elapsed().as_secs_f64()));
        let column = format!("{rows} rows");
        for _ in 0..bench.options.rounds {
            for (query, path) in queries(&environment.stack.namespace, rows) {
                let times = measure_query(environment, path).await.with_context(|| format!("{table}, {column}, {query}"))?.times;
                for (name, share) in [("p50, ms", 0.5), ("p99, ms", 0.99)] {
                    bench.report.add(&table, &format!("{query}: {name}"), &column, times.percentile(share));
                }
            }
        }
    }
    connection.close().await?;
    Ok(())
}

/// The URL of the archive's database, from the URL of another database on the same server.
fn archive_url(url: &str) -> String {
    let server = url.rsplit_once('/').map_or(url, |(server, _)| server);
    format!("{server}/archive")
}

/// Repeats one query, each time for another order, and measures its times.
async fn measure_query(
    environment: &Environment,
    path: impl Fn(u64) -> String + Send + Sync + Clone + 'static,
) -> Result<load::Load> {
    let token = std::fs::read_to_string(environment.stack.directory.join("api-server-archive.token"))?;
    let (http, url, bearer) =
        (environment.http.clone(), environment.stack.archive.url.clone(), format!("Bearer {}", token.trim()));
    // Steps of a large prime cover all parts of the table.
    let next = Arc::new(AtomicU64::new(0));
    let work = move |_| {
        let number = next.fetch_add(7_919_777, Ordering::Relaxed);
        let request = http.get(format!("{url}{}", path(number))).header("Authorization", &bearer);
        async move {
            let started = Instant::now();
            request.send().await?.error_for_status()?.bytes().await?;
            Ok(started.elapsed())
        }
    };
    load::run_closed_loop(1, QUERY_DURATION, work).await
}

type Query = (&'static str, Box<dyn Fn(u64) -> String + Send + Sync>);

/// The queries by their description, for an archive with this number of rows in this namespace.
fn queries(namespace: &str, rows: u64) -> Vec<(&'static str, impl Fn(u64) -> String + Send + Sync + Clone + 'static)> {
    let list = format!("/archive/orders?namespace={namespace}");
    let (by_login, by_state, from_middle, between) = (list.clone(), list.clone(), list.clone(), list.clone());
    let by_name = format!("/archive/namespaces/{namespace}/orders/archived-");
    let at = |row: u64| BEGINNING + row * 1_000_000;
    let all: Vec<Query> = vec![
        ("one by its name", Box::new(move |number| format!("{by_name}{}", number % rows))),
        ("first page", Box::new(move |_| list.clone())),
        ("first page of a login", Box::new(move |number| format!("{by_login}&login=customer-{}", number % LOGINS))),
        ("first page of a state that one in twenty has", Box::new(move |_| format!("{by_state}&state=InsufficientFunds"))),
        ("a page in the middle", Box::new(move |number| format!("{from_middle}&before={},z", at(number % rows)))),
        (
            "a page of a login between two times",
            Box::new(move |number| {
                let (login, half) = (number % LOGINS, at(rows / 2));
                format!("{between}&login=customer-{login}&from={BEGINNING}&to={half}")
            }),
        ),
    ];
    let shared = |(name, path): Query| {
        let path: Arc<dyn Fn(u64) -> String + Send + Sync> = Arc::from(path);
        (name, move |number| path(number))
    };
    all.into_iter().map(shared).collect()
}

/// A finished order in the archive's format.
async fn read_finished_order(environment: &Environment) -> Result<String> {
    let orders: Api<Order> = Api::namespaced(environment.client.clone(), &environment.stack.namespace);
    let order = orders.list(&ListParams::default().limit(1)).await?.items.into_iter().next().context("there is no order")?;
    let name = order.metadata.name.unwrap_or_default();
    let path = format!("/apis/arch.homework/v1/namespaces/{}/orders/{name}", environment.stack.namespace);
    let mut order: Value = environment.client.request(Request::get(path).body(Vec::new())?).await?;
    if let Some(metadata) = order["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    Ok(order.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_a_database_of_the_same_server() {
        assert_eq!(archive_url("postgres://orders@127.0.0.1:5432/orders"), "postgres://orders@127.0.0.1:5432/archive");
    }

    #[test]
    fn queries_stay_within_the_rows() {
        for (name, path) in queries("shop", 1000) {
            let path = path(1_000_007);
            assert!(path.contains("shop"), "{name}: {path}");
        }
        let all = queries("shop", 1000);
        assert_eq!(all[0].1(1_000_007), "/archive/namespaces/shop/orders/archived-7");
        assert_eq!(all[4].1(1_000_007), "/archive/orders?namespace=shop&before=1700000007000000,z");
    }
}
