//! The styles of interaction side by side, for docs/explanation/interaction.md.

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

use crate::processes::mebibytes;
use crate::site::programs;
use crate::statistics::Times;

/// How long one answer may take before the comparison is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long the orders of one measurement may take until the last customer is told.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a namespace with its orders may take to go.
const CLEAR_LIMIT: Duration = Duration::from_secs(300);

/// How long after the status of the last order the last Event may come.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Orders one after the other before the first measurement.
const WARM_UP_ORDERS: u32 = 20;

/// The columns.
const STYLES: [Interaction; 3] = [Interaction::Http, Interaction::NotifyBroker, Interaction::Broker];

/// The streams that the services talk over; see `contracts/src/topology.rs`.
const STREAMS: [&str; 3] = ["ORDERS-PAYMENTS", "ORDERS-OUTCOMES", "ORDERS-NOTIFICATIONS"];

/// What is compared, and for how long.
#[derive(Debug)]
pub struct Options {
    /// Directory with the services' programs.
    programs: PathBuf,
    /// How often each style is measured; they alternate.
    rounds: u32,
    /// How many orders one client places, one after the other.
    orders: u32,
    /// How many clients place orders at once.
    clients: u32,
    /// For how many seconds they do.
    seconds: u64,
}

impl Options {
    /// What the command line says.
    ///
    /// # Errors
    /// When a program of the services is not there.
    pub fn new(options: &crate::options::Options, orders: u32, together: u32) -> Result<Self> {
        let (rounds, seconds) = (options.rounds, options.seconds);
        Ok(Options { programs: programs(options)?, rounds, orders, clients: together, seconds })
    }
}

/// Measures each style in turn, in rounds, until `interrupted` resolves, and
/// prints a table of the medians. Logs are kept in the cache's `run/compare`.
///
/// # Errors
/// When something does not start or answer, or an order is not paid.
pub async fn run(cache: &Cache, options: &Options, interrupted: impl Future<Output = Result<()>>) -> Result<()> {
    let directory = cache.run("compare");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let cluster = Cluster::control_plane().await?;
    let client = cluster.client().await?;

    let namespace = Mutex::new(None);
    let measured = tokio::select! {
        measured = rounds(&cluster, &directory, options, &namespace) => {
            measured.with_context(|| format!("logs: {}", directory.display()))
        }
        signal = interrupted => signal.and_then(|()| bail!("interrupted; what was started is ended")),
    };
    let left = namespace.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(left) = left {
        // Goes on its own once it is asked for.
        let _ = timeout(ANSWER_LIMIT, Api::<Namespace>::all(client).delete(&left, &DeleteParams::default())).await;
    }
    print!("{}", table(&measured?, options));
    Ok(())
}

/// What each style was measured at, round by round. `current` names the namespace that is there.
async fn rounds(
    cluster: &Cluster,
    directory: &Path,
    options: &Options,
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
            let shop = Shop::open(cluster, &namespace, &directory, style, options).await?;
            let new = shop.measure(options).await.with_context(|| name.clone())?;
            eprintln!(
                "{name}: one client p50 {:.1} ms, {} clients {:.0} orders/s",
                new.alone.p50, options.clients, new.together.rate
            );
            figures.push(new);
            drop(shop);
            clear(&namespaces, &namespace).await;
            *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
    Ok(measured)
}

/// Deletes a namespace and waits until its orders are gone, which would disturb what is measured next.
async fn clear(namespaces: &Api<Namespace>, name: &str) {
    let gone = wait_for("the namespace to be gone", CLEAR_LIMIT, || async {
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
    if let Err(error) = gone.await {
        eprintln!("namespace {name}: {error}; going on, the next figures may suffer");
    }
}

/// What one style was measured at in one round.
struct Figures {
    alone: Load,
    together: Load,
    /// MiB of the api-server, the operator, billing, notify, and of NATS where there is one.
    memory: [Option<f64>; 5],
}

/// Orders that were placed one way.
struct Load {
    /// Milliseconds from POST to answer that half of the orders did not exceed.
    p50: f64,
    /// And 99 of a hundred.
    p99: f64,
    /// Answered in a second.
    rate: f64,
    /// How many were answered before they were decided.
    undecided: usize,
    /// Published on the broker, for each order; `None` without one.
    messages: Option<f64>,
    /// Billing and notify were called, for each order.
    calls: f64,
    /// Orders and Events were written in the Kubernetes API, for each order;
    /// `None` if somebody else placed orders meanwhile.
    writes: Option<f64>,
}

/// Everything that was counted since its beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    messages: u64,
    calls: u64,
    writes: u64,
    created: u64,
}

/// The services in one style, with all that they need. Dropped in this order.
struct Shop {
    stack: Stack,
    nats: Option<Nats>,
    http: reqwest::Client,
    client: Client,
    _inbox: Inbox,
    _postgres: Postgres,
}

impl Shop {
    async fn open(
        cluster: &Cluster,
        namespace: &str,
        directory: &Path,
        interaction: Interaction,
        options: &Options,
    ) -> Result<Self> {
        // NATS has a message on the disk before its publisher hears of it: here a commit is, too.
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
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Shop { stack, nats, http, client: cluster.client().await?, _inbox: inbox, _postgres: postgres })
    }

    async fn measure(&self, options: &Options) -> Result<Figures> {
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
        self.settled().await?;

        let alone = self.load(one, Until::Orders(options.orders)).await?;
        let together = self.load(&logins, Until::Passed(seconds)).await?;
        Ok(Figures { alone, together, memory: self.memory()? })
    }

    /// Places orders, and counts what they took until the last customer was told.
    async fn load(&self, logins: &[String], until: Until) -> Result<Load> {
        let before = self.counts().await?;
        let started = Instant::now();
        let Placed { times, undecided } = self.place(logins, until).await?;
        let took = started.elapsed();
        self.settled().await?;
        let after = self.counts().await?;

        let placed = times.count() as f64;
        let others = after.created - before.created != times.count();
        if others {
            eprintln!("somebody else placed orders in this cluster meanwhile: its writes are not counted");
        }
        let each = |count: fn(&Counts) -> u64| (count(&after) - count(&before)) as f64 / placed;
        Ok(Load {
            p50: times.percentile(0.5),
            p99: times.percentile(0.99),
            rate: placed / took.as_secs_f64(),
            undecided,
            messages: self.nats.is_some().then(|| each(|counts| counts.messages)),
            calls: each(|counts| counts.calls),
            writes: (!others).then(|| each(|counts| counts.writes)),
        })
    }

    /// One client for each login, each placing its next order when the last one is answered.
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
                    let answer = response.text().await?;
                    ensure!(status == 200 || status == 202, "an order was answered {status}: {answer}");
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

    /// Waits until every order is paid and its customer told.
    async fn settled(&self) -> Result<()> {
        let orders: Api<Order> = Api::namespaced(self.client.clone(), &self.stack.namespace);
        let unfinished = || async {
            let orders = orders.list(&ListParams::default()).await.ok()?.items;
            let finished = |order: &Order| {
                order.outcome() == Outcome::Paid && order.status.as_ref().is_some_and(|status| status.is_notified())
            };
            Some(orders.iter().filter(|order| !finished(order)).map(ResourceExt::name_any).collect::<Vec<_>>())
        };
        let settled = wait_for("all orders to be paid and told", SETTLE_LIMIT, || async {
            let unfinished = unfinished().await?;
            if !unfinished.is_empty() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            unfinished.is_empty().then_some(())
        });
        if let Err(error) = settled.await {
            let unfinished = timeout(ANSWER_LIMIT, unfinished()).await.ok().flatten().unwrap_or_default();
            bail!("{error}; {} are not, such as {:?}", unfinished.len(), unfinished.first());
        }
        tokio::time::sleep(LAST_EVENTS).await;
        Ok(())
    }

    async fn counts(&self) -> Result<Counts> {
        let mut counts = Counts { messages: self.messages().await?, ..Counts::default() };
        for service in [&self.stack.billing, &self.stack.notify] {
            let metrics = self.http.get(service.metrics_url()).send().await?.error_for_status()?.text().await?;
            counts.calls += sum(&metrics, "axum_http_requests_total", |_| true);
        }
        let request = Request::get("/metrics").body(Vec::new())?;
        let metrics = timeout(ANSWER_LIMIT, self.client.request_text(request)).await.context("kube-apiserver's metrics")??;
        let is_order = |labels: &str| labels.contains(r#"group="arch.homework",resource="orders""#);
        let is_write = |labels: &str| ["POST", "PATCH", "PUT"].iter().any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
        let is_ours = |labels: &str| is_write(labels) && (is_order(labels) || labels.contains(r#"resource="events""#));
        counts.writes = sum(&metrics, "apiserver_request_total", is_ours);
        counts.created = sum(&metrics, "apiserver_request_total", |labels| is_order(labels) && labels.contains(r#"verb="POST""#));
        Ok(counts)
    }

    /// How many messages were ever stored in the services' streams.
    async fn messages(&self) -> Result<u64> {
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

    fn memory(&self) -> Result<[Option<f64>; 5]> {
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

/// When a client has placed enough.
#[derive(Clone, Copy)]
enum Until {
    /// After so many.
    Orders(u32),
    /// When so much time has passed, and after one at least.
    Passed(Duration),
}

/// Orders that were answered.
#[derive(Default)]
struct Placed {
    times: Times,
    undecided: usize,
}

/// The sum of a counter over its labels, of Prometheus text.
fn sum(metrics: &str, name: &str, counts: impl Fn(&str) -> bool) -> u64 {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    series.filter(|(labels, _)| counts(labels)).filter_map(|(_, value)| value.trim().parse::<f64>().ok()).sum::<f64>() as u64
}

/// A row of the table: what it shows, with how many places.
type Row = (String, usize, fn(&Figures) -> Option<f64>);

fn rows(options: &Options) -> Vec<Row> {
    let (alone, together) = ("one client".to_owned(), format!("{} clients", options.clients));
    vec![
        (format!("{alone}: POST to answer, p50, ms"), 1, |f| Some(f.alone.p50)),
        (format!("{alone}: p99, ms"), 1, |f| Some(f.alone.p99)),
        (format!("{together}: orders answered in a second"), 0, |f| Some(f.together.rate)),
        (format!("{together}: POST to answer, p50, ms"), 1, |f| Some(f.together.p50)),
        (format!("{together}: p99, ms"), 1, |f| Some(f.together.p99)),
        (format!("{together}: orders answered undecided (202)"), 0, |f| Some(f.together.undecided as f64)),
        (format!("messages for each order, {alone}"), 2, |f| f.alone.messages),
        (format!("messages for each order, {together}"), 2, |f| f.together.messages),
        (format!("HTTP calls to billing and notify for each order, {alone}"), 2, |f| Some(f.alone.calls)),
        (format!("HTTP calls to billing and notify for each order, {together}"), 2, |f| Some(f.together.calls)),
        (format!("writes to the Kubernetes API for each order, {alone}"), 2, |f| f.alone.writes),
        (format!("writes to the Kubernetes API for each order, {together}"), 2, |f| f.together.writes),
        ("memory of the api-server, MiB".to_owned(), 1, |f| f.memory[0]),
        ("memory of the operator, MiB".to_owned(), 1, |f| f.memory[1]),
        ("memory of billing, MiB".to_owned(), 1, |f| f.memory[2]),
        ("memory of notify, MiB".to_owned(), 1, |f| f.memory[3]),
        ("memory of NATS, MiB".to_owned(), 1, |f| f.memory[4]),
    ]
}

/// Medians, with the least and the greatest of the rounds behind them.
fn table(measured: &[Vec<Figures>; STYLES.len()], options: &Options) -> String {
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
    fn a_counter_is_summed_over_the_labels_that_are_meant() {
        let metrics = "# TYPE requests_total counter\n\
            requests_total{verb=\"POST\",resource=\"orders\"} 3\n\
            requests_total{verb=\"POST\",resource=\"events\"} 4\n\
            requests_total_more{verb=\"POST\"} 100\n\
            requests_total{verb=\"GET\",resource=\"orders\"} 5e1\n";
        assert_eq!(sum(metrics, "requests_total", |labels| labels.contains("POST")), 7);
        assert_eq!(sum(metrics, "requests_total", |_| true), 57);
    }
}
