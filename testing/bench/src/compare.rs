//! Measures the styles of interaction and compares them in a table, for docs/explanation/interaction.md.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use orders_crds::{Order, Outcome};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use orders_shop::{Interaction, Stack, StackOptions};
use orders_testbed::{Cache, Cluster, Inbox, Nats, Postgres, PostgresOptions, Process, wait_for};

use crate::environment::programs;
use crate::processes::mebibytes;
use crate::statistics::Times;

/// The time limit for one response. If it passes, the comparison fails.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit until the last customer of one measurement is notified.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The time limit for the deletion of a namespace with its orders.
const DELETION_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest time between the status of the last order and the last Event.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The number of orders that are placed one after the other before the first measurement.
const WARM_UP_ORDERS: u32 = 20;

/// The styles, which are the columns of the table.
const STYLES: [Interaction; 3] = [Interaction::Http, Interaction::NotifyBroker, Interaction::Broker];

/// The streams over which the services communicate; see `contracts/src/topology.rs`.
const STREAMS: [&str; 3] = ["ORDERS-PAYMENTS", "ORDERS-OUTCOMES", "ORDERS-NOTIFICATIONS"];

/// The options of the comparison.
#[derive(Debug)]
pub struct ComparisonOptions {
    /// Directory with the services' programs.
    programs: PathBuf,
    /// The number of measurements of each style; the styles alternate.
    rounds: u32,
    /// The number of orders that one client places, one after the other.
    orders: u32,
    /// The number of clients that place orders at the same time.
    clients: u32,
    /// The number of seconds for which they place orders.
    seconds: u64,
}

impl ComparisonOptions {
    /// Converts the options of the command line.
    ///
    /// # Errors
    /// If a program of the services does not exist.
    pub fn new(options: &crate::options::Options, orders: u32, concurrency: u32) -> Result<Self> {
        let (rounds, seconds) = (options.rounds, options.seconds);
        Ok(ComparisonOptions { programs: programs(options)?, rounds, orders, clients: concurrency, seconds })
    }
}

/// Measures each style in turn, in rounds, until `interrupted` resolves, and
/// prints a table of the medians. Logs are in the cache's directory `run/compare`.
///
/// # Errors
/// If a process does not start or respond, or an order is not paid.
pub async fn run(cache: &Cache, options: &ComparisonOptions, interrupted: impl Future<Output = Result<()>>) -> Result<()> {
    let directory = cache.run("compare");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let cluster = Cluster::control_plane().await?;
    let client = cluster.client().await?;

    let namespace = Mutex::new(None);
    let measured = tokio::select! {
        measured = measure_rounds(&cluster, &directory, options, &namespace) => {
            measured.with_context(|| format!("logs: {}", directory.display()))
        }
        signal = interrupted => signal.and_then(|()| bail!("interrupted; all processes that were started are stopped")),
    };
    let remaining = namespace.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(remaining) = remaining {
        // Kubernetes completes the deletion after the request.
        let _ = timeout(RESPONSE_TIMEOUT, Api::<Namespace>::all(client).delete(&remaining, &DeleteParams::default())).await;
    }
    print!("{}", table(&measured?, options));
    Ok(())
}

/// Measures each style in each round and returns the figures. `current` holds the name of the existing namespace.
async fn measure_rounds(
    cluster: &Cluster,
    directory: &Path,
    options: &ComparisonOptions,
    current: &Mutex<Option<String>>,
) -> Result<[Vec<Figures>; STYLES.len()]> {
    let namespaces: Api<Namespace> = Api::all(cluster.client().await?);
    let mut measured = STYLES.map(|_| Vec::new());
    for round in 1..=options.rounds {
        for (style, figures) in STYLES.into_iter().zip(&mut measured) {
            let name = format!("round {round} of {}, {}", options.rounds, style.as_str());
            eprintln!("{name}: starting");
            let directory = directory.join(format!("{round}-{}", style.as_str()));
            fs::create_dir_all(&directory)?;
            let namespace = cluster.namespace("compare").await?;
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(namespace.clone());
            let services = StyleServices::start(cluster, &namespace, &directory, style, options).await?;
            let new = services.measure(options).await.with_context(|| name.clone())?;
            eprintln!(
                "{name}: one client p50 {:.1} ms, {} clients {:.0} orders/s",
                new.sequential.p50, options.clients, new.concurrent.rate
            );
            figures.push(new);
            drop(services);
            delete_namespace(&namespaces, &namespace).await;
            *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
    Ok(measured)
}

/// Deletes a namespace and waits until its orders are gone, since the deletion would disturb the next measurement.
async fn delete_namespace(namespaces: &Api<Namespace>, name: &str) {
    let deleted = wait_for("the deletion of the namespace", DELETION_TIMEOUT, || async {
        match namespaces.get_opt(name).await.ok()? {
            None => Some(()),
            Some(namespace) => {
                if namespace.metadata.deletion_timestamp.is_none() {
                    namespaces.delete(name, &DeleteParams::default()).await.ok()?;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
                None
            }
        }
    });
    if let Err(error) = deleted.await {
        eprintln!("namespace {name}: {error}; continuing, the next figures may be worse");
    }
}

/// The figures of one style in one round.
struct Figures {
    sequential: OrderFigures,
    concurrent: OrderFigures,
    /// Memory in MiB of the api-server, the operator, billing, notify, and of NATS if the style uses it.
    memory: [Option<f64>; 5],
}

/// The figures of the orders of one measurement.
struct OrderFigures {
    /// The median time from POST to response, in milliseconds.
    p50: f64,
    /// The 99th percentile of that time, in milliseconds.
    p99: f64,
    /// Responses per second.
    rate: f64,
    /// The number of orders whose response came before their outcome.
    undecided: usize,
    /// Messages published on the broker, for each order; `None` without a broker.
    messages: Option<f64>,
    /// Calls of billing and notify, for each order.
    calls: f64,
    /// Writes of orders and Events to the Kubernetes API, for each order;
    /// `None` if another client placed orders at the same time.
    writes: Option<f64>,
}

/// The values of all counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct CounterValues {
    messages: u64,
    calls: u64,
    writes: u64,
    created: u64,
}

/// The services in one style, with the servers that they need. Fields are dropped in this order.
struct StyleServices {
    stack: Stack,
    nats: Option<Nats>,
    http: reqwest::Client,
    client: Client,
    _inbox: Inbox,
    _postgres: Postgres,
}

impl StyleServices {
    async fn start(
        cluster: &Cluster,
        namespace: &str,
        directory: &Path,
        interaction: Interaction,
        options: &ComparisonOptions,
    ) -> Result<Self> {
        // NATS writes a message to disk before it acknowledges it. For a fair comparison, PostgreSQL waits for the disk, too.
        let postgres = Postgres::start_with(directory, PostgresOptions { fsync: true, ..PostgresOptions::default() }).await?;
        let inbox = Inbox::start(directory).await?;
        let nats = match interaction {
            Interaction::Http => None,
            Interaction::NotifyBroker | Interaction::Broker => Some(Nats::start(directory).await?),
        };
        let stack = StackOptions {
            billing_database: Some(postgres.database("billing")?),
            notify_database: Some(postgres.database("notify")?),
            interaction,
            nats: nats.as_ref().map(Nats::access),
            programs: Some(options.programs.clone()),
            ..StackOptions::new(inbox.smtp_url())
        };
        let stack = Stack::start_in(cluster, namespace, directory, stack).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(RESPONSE_TIMEOUT).build()?;
        Ok(StyleServices { stack, nats, http, client: cluster.client().await?, _inbox: inbox, _postgres: postgres })
    }

    async fn measure(&self, options: &ComparisonOptions) -> Result<Figures> {
        let logins: Vec<String> = (0..options.clients).map(|number| format!("customer-{number}")).collect();
        for login in &logins {
            let base = &self.stack.api_server.url;
            self.http.post(format!("{base}/billing/register?login={login}")).send().await?.error_for_status()?;
            let refill = json!({"login": login, "balance": 100_000_000});
            self.http.post(format!("{base}/billing/refill")).json(&refill).send().await?.error_for_status()?;
        }
        let (one, seconds) = (&logins[..1], Duration::from_secs(options.seconds));
        self.place(one, Until::Orders(WARM_UP_ORDERS)).await?;
        self.place(&logins, Until::Passed(seconds / 5)).await?;
        self.wait_settled().await?;

        let sequential = self.measure_orders(one, Until::Orders(options.orders)).await?;
        let concurrent = self.measure_orders(&logins, Until::Passed(seconds)).await?;
        Ok(Figures { sequential, concurrent, memory: self.read_memory()? })
    }

    /// Places orders, and measures them until the last customer is notified.
    async fn measure_orders(&self, logins: &[String], until: Until) -> Result<OrderFigures> {
        let before = self.read_counters().await?;
        let started = Instant::now();
        let Placed { times, undecided } = self.place(logins, until).await?;
        let took = started.elapsed();
        self.wait_settled().await?;
        let after = self.read_counters().await?;

        let placed = times.count() as f64;
        let has_other_orders = after.created - before.created != times.count();
        if has_other_orders {
            eprintln!("another client placed orders in this cluster at the same time: writes are not counted");
        }
        let each = |count: fn(&CounterValues) -> u64| (count(&after) - count(&before)) as f64 / placed;
        Ok(OrderFigures {
            p50: times.percentile(0.5),
            p99: times.percentile(0.99),
            rate: placed / took.as_secs_f64(),
            undecided,
            messages: self.nats.is_some().then(|| each(|counts| counts.messages)),
            calls: each(|counts| counts.calls),
            writes: (!has_other_orders).then(|| each(|counts| counts.writes)),
        })
    }

    /// Runs one client for each login. Each client places its next order after the response to the last one.
    async fn place(&self, logins: &[String], until: Until) -> Result<Placed> {
        let mut clients = JoinSet::new();
        let started = Instant::now();
        for login in logins {
            let (http, url) = (self.http.clone(), format!("{}/orders/", self.stack.api_server.url));
            let order = json!({"login": login, "e_mail": format!("{login}@example.com"), "id_cart": 0, "amount": 1});
            clients.spawn(async move {
                let mut placed = Placed::default();
                while match until {
                    Until::Orders(orders) => placed.times.count() < u64::from(orders),
                    Until::Passed(time) => placed.times.count() == 0 || started.elapsed() < time,
                } {
                    let sent = Instant::now();
                    let response = http.post(&url).json(&order).send().await?;
                    let status = response.status().as_u16();
                    let body = response.text().await?;
                    ensure!(status == 200 || status == 202, "the response to an order was {status}: {body}");
                    placed.times.record(sent.elapsed());
                    placed.undecided += usize::from(status == 202);
                }
                Ok(placed)
            });
        }
        let mut all = Placed::default();
        while let Some(placed) = clients.join_next().await {
            let placed = placed??;
            all.times.add(&placed.times);
            all.undecided += placed.undecided;
        }
        Ok(all)
    }

    /// Waits until every order is paid and its customer notified.
    async fn wait_settled(&self) -> Result<()> {
        let orders: Api<Order> = Api::namespaced(self.client.clone(), &self.stack.namespace);
        let unfinished = || async {
            let orders = orders.list(&ListParams::default()).await.ok()?.items;
            let finished = |order: &Order| {
                order.outcome() == Outcome::Paid && order.status.as_ref().is_some_and(|status| status.is_notified())
            };
            Some(orders.iter().filter(|order| !finished(order)).map(ResourceExt::name_any).collect::<Vec<_>>())
        };
        let settled = wait_for("all orders to be paid and their customers notified", SETTLE_TIMEOUT, || async {
            let unfinished = unfinished().await?;
            if !unfinished.is_empty() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            unfinished.is_empty().then_some(())
        });
        if let Err(error) = settled.await {
            let unfinished = timeout(RESPONSE_TIMEOUT, unfinished()).await.ok().flatten().unwrap_or_default();
            bail!("{error}; {} orders are not, such as {:?}", unfinished.len(), unfinished.first());
        }
        tokio::time::sleep(LAST_EVENTS).await;
        Ok(())
    }

    async fn read_counters(&self) -> Result<CounterValues> {
        let mut counts = CounterValues { messages: self.count_messages().await?, ..CounterValues::default() };
        for service in [&self.stack.billing, &self.stack.notify] {
            let metrics = self.http.get(service.metrics_url()).send().await?.error_for_status()?.text().await?;
            counts.calls += sum(&metrics, "axum_http_requests_total", |_| true);
        }
        let request = Request::get("/metrics").body(Vec::new())?;
        let metrics =
            timeout(RESPONSE_TIMEOUT, self.client.request_text(request)).await.context("kube-apiserver's metrics")??;
        let is_order = |labels: &str| labels.contains(r#"group="arch.homework",resource="orders""#);
        let is_write = |labels: &str| ["POST", "PATCH", "PUT"].iter().any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
        let is_ours = |labels: &str| is_write(labels) && (is_order(labels) || labels.contains(r#"resource="events""#));
        counts.writes = sum(&metrics, "apiserver_request_total", is_ours);
        counts.created = sum(&metrics, "apiserver_request_total", |labels| is_order(labels) && labels.contains(r#"verb="POST""#));
        Ok(counts)
    }

    /// The number of messages that were ever stored in the services' streams.
    async fn count_messages(&self) -> Result<u64> {
        let Some(nats) = &self.nats else { return Ok(0) };
        let url = format!("{}/jsz?accounts=true&streams=true", nats.monitor_url());
        let state: Value = self.http.get(url).send().await?.error_for_status()?.json().await?;
        let accounts = state["account_details"].as_array().into_iter().flatten();
        let streams: Vec<&Value> =
            accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten()).collect();
        let last = |name: &str| {
            streams.iter().find(|stream| stream["name"] == name).and_then(|stream| stream["state"]["last_seq"].as_u64())
        };
        let dead = last("ORDERS-DEAD-LETTERS").unwrap_or_default();
        ensure!(dead == 0, "{dead} messages became dead letters");
        STREAMS.into_iter().map(|name| last(name).with_context(|| format!("NATS shows no stream {name}"))).sum()
    }

    fn read_memory(&self) -> Result<[Option<f64>; 5]> {
        let of = |process: &Process| -> Result<Option<f64>> {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
            Ok(Some(mebibytes(&status, "VmRSS:")))
        };
        let operator = self.stack.operators.first().context("a stack has an operator")?;
        let nats = self.nats.as_ref().map(Nats::process).transpose()?;
        Ok([
            of(&self.stack.api_server.process)?,
            of(&operator.process)?,
            of(&self.stack.billing.process)?,
            of(&self.stack.notify.process)?,
            nats.map_or(Ok(None), of)?,
        ])
    }
}

/// The condition after which a client places no more orders.
#[derive(Clone, Copy)]
enum Until {
    /// After this number of orders.
    Orders(u32),
    /// After this time, and after at least one order.
    Passed(Duration),
}

/// Orders that got a response.
#[derive(Default)]
struct Placed {
    times: Times,
    undecided: usize,
}

/// The sum of a counter over its labels, from Prometheus text.
fn sum(metrics: &str, name: &str, is_counted: impl Fn(&str) -> bool) -> u64 {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    series.filter(|(labels, _)| is_counted(labels)).filter_map(|(_, value)| value.trim().parse::<f64>().ok()).sum::<f64>() as u64
}

/// A row of the table: its title, its number of decimal places, and its value.
type Row = (String, usize, fn(&Figures) -> Option<f64>);

fn rows(options: &ComparisonOptions) -> Vec<Row> {
    let (sequential, concurrent) = ("one client".to_owned(), format!("{} clients", options.clients));
    vec![
        (format!("{sequential}: POST to response, p50, ms"), 1, |f| Some(f.sequential.p50)),
        (format!("{sequential}: p99, ms"), 1, |f| Some(f.sequential.p99)),
        (format!("{concurrent}: responses per second"), 0, |f| Some(f.concurrent.rate)),
        (format!("{concurrent}: POST to response, p50, ms"), 1, |f| Some(f.concurrent.p50)),
        (format!("{concurrent}: p99, ms"), 1, |f| Some(f.concurrent.p99)),
        (format!("{concurrent}: responses before the outcome (202)"), 0, |f| Some(f.concurrent.undecided as f64)),
        (format!("messages for each order, {sequential}"), 2, |f| f.sequential.messages),
        (format!("messages for each order, {concurrent}"), 2, |f| f.concurrent.messages),
        (format!("HTTP calls to billing and notify for each order, {sequential}"), 2, |f| Some(f.sequential.calls)),
        (format!("HTTP calls to billing and notify for each order, {concurrent}"), 2, |f| Some(f.concurrent.calls)),
        (format!("writes to the Kubernetes API for each order, {sequential}"), 2, |f| f.sequential.writes),
        (format!("writes to the Kubernetes API for each order, {concurrent}"), 2, |f| f.concurrent.writes),
        ("memory of the api-server, MiB".to_owned(), 1, |f| f.memory[0]),
        ("memory of the operator, MiB".to_owned(), 1, |f| f.memory[1]),
        ("memory of billing, MiB".to_owned(), 1, |f| f.memory[2]),
        ("memory of notify, MiB".to_owned(), 1, |f| f.memory[3]),
        ("memory of NATS, MiB".to_owned(), 1, |f| f.memory[4]),
    ]
}

/// A table of the medians. Each is followed by the minimum and the maximum of the rounds.
fn table(measured: &[Vec<Figures>; STYLES.len()], options: &ComparisonOptions) -> String {
    let mut text = "|".to_owned();
    for style in STYLES {
        let _ = write!(text, " | `{}`", style.as_str());
    }
    text.push_str(" |\n|---|---|---|---|\n");
    for (what, places, of) in rows(options) {
        let _ = write!(text, "| {what}");
        for figures in measured {
            let _ = write!(text, " | {}", cell(figures.iter().filter_map(of).collect(), places));
        }
        text.push_str(" |\n");
    }
    text
}

fn cell(mut values: Vec<f64>, places: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (values.first(), values.last()) else { return "–".to_owned() };
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    let show = |value: f64| format!("{value:.places$}");
    if show(*least) == show(*greatest) {
        return show(median);
    }
    format!("{} ({}–{})", show(median), show(*least), show(*greatest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_the_median_and_the_spread() {
        assert_eq!(cell(vec![3.0, 1.0, 2.04], 1), "2.0 (1.0–3.0)");
        assert_eq!(cell(vec![1.0, 2.0], 1), "1.5 (1.0–2.0)");
        assert_eq!(cell(vec![4.0, 4.0, 4.0], 0), "4");
        assert_eq!(cell(vec![], 1), "–");
    }

    #[test]
    fn a_counter_is_summed_over_the_selected_labels() {
        let metrics = "# TYPE requests_total counter\n\
            requests_total{verb=\"POST\",resource=\"orders\"} 3\n\
            requests_total{verb=\"POST\",resource=\"events\"} 4\n\
            requests_total_more{verb=\"POST\"} 100\n\
            requests_total{verb=\"GET\",resource=\"orders\"} 5e1\n";
        assert_eq!(sum(metrics, "requests_total", |labels| labels.contains("POST")), 7);
        assert_eq!(sum(metrics, "requests_total", |_| true), 57);
    }
}
