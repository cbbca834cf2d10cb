//! Tests that twenty thousand orders are placed, decided, archived and deleted.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use orders_testbed::{Cluster, wait_for};
use serde_json::{Value, json};

use super::etcd::{ALL, EVENTS, Etcd, ORDERS, Size};
use super::load::{assert_audit_passes, list_all, place_order_with_retries, read_number, start};
use crate::shop::Shop;

/// The number of orders, unless the environment variable `ORDERS` sets another one.
const DEFAULT_ORDERS: usize = 20_000;

/// The number of clients, each of which places its next order after the response to the last one. It is
/// larger than the operator's concurrency, so that the operator is never idle.
const CLIENTS: usize = 48;

const CUSTOMERS: usize = 20;

/// The balance of each customer, in hundredths, as all money here. No customer spends all of it.
const REFILL: u64 = 1_000_000_000;

/// The operator's `ttlSecondsAfterFinished`, shorter than [`OVERLAP`].
const TTL: Duration = Duration::from_secs(2);

/// How long the operator keeps a resource after the archive has it. This time runs in parallel to the TTL.
const OVERLAP: Duration = Duration::from_secs(15);

/// The maximum delay of a message: under load, some of the operator's calls of
/// notify time out, and the operator queries the state half a second, one and two seconds later.
const MESSAGE_DELAY: Duration = Duration::from_secs(5);

/// The time for two checks of the operator, one second apart, for archiving and
/// deleting five hundred orders, and a reserve for a slow machine.
const PROCESSING: Duration = Duration::from_secs(30);

/// Longer than any order is live, so that the number of live orders never exceeds the number of orders
/// placed within this time. Most orders are live for 18 s.
const MAX_LIFETIME: Duration = MESSAGE_DELAY.saturating_add(OVERLAP).saturating_add(PROCESSING);

/// The interval at which the control plane of this test compacts etcd. It compacts to the revision
/// of the previous compaction, so a revision is kept for at most two intervals.
const COMPACTION: Duration = Duration::from_secs(15);

/// The TTL of Events in this control plane. (The default is an hour.)
const EVENT_TTL: Duration = Duration::from_secs(30);

/// The maximum number of Events of an order: one for its outcome, one for its message, and another one if
/// the message had to wait.
const EVENTS_PER_ORDER: usize = 3;

/// The maximum number of other Events: those of the control plane itself, and of earlier orders.
const EVENTS_OF_OTHERS: usize = 3000;

/// The maximum size that etcd may use at the end in addition to the size before any order: pages
/// that are not full, the Leases and their history.
const SIZE_TOLERANCE: u64 = 4 << 20;

/// The maximum ratio of the time for a page with all orders in the archive to that with a
/// twentieth of them. The actual ratio is 1; it would be 20 if the time grew with the number of orders.
const MAX_RATIO: f64 = 3.0;

/// An order of the load, by its number: most are paid, one in ten is too expensive, one in
/// fifty belongs to an unknown customer.
struct PlannedOrder {
    key: String,
    login: String,
    amount: u64,
    reason: &'static str,
    /// The expected status of the response.
    status: u16,
}

impl PlannedOrder {
    fn new(number: usize) -> Self {
        let (login, amount) = (format!("customer-{}", number % CUSTOMERS), 125 + 100 * (number % 7) as u64);
        let key = format!("order-{number}");
        if number % 50 == 13 {
            return PlannedOrder { key, login: "nobody".to_owned(), amount, reason: "AccountNotFound", status: 404 };
        }
        if number % 10 == 7 {
            return PlannedOrder { key, login, amount: 10 * REFILL + amount, reason: "InsufficientFunds", status: 400 };
        }
        PlannedOrder { key, login, amount, reason: "Paid", status: 200 }
    }

    /// The amount as a JSON number, for comparisons. It is exact enough here.
    fn json_amount(&self) -> Value {
        json!(self.amount as f64 / 100.0)
    }
}

/// The progress of the load.
#[derive(Default)]
struct Progress {
    placed: AtomicUsize,
    /// The ids of the orders with a response, and their numbers in the plan.
    responses: Mutex<HashMap<i64, usize>>,
}

impl Progress {
    fn responses(&self) -> HashMap<i64, usize> {
        self.responses.lock().expect("no client panics").clone()
    }
}

/// Observations of the store during the load.
#[derive(Debug, Default)]
struct Observations {
    most_live: usize,
    most_events: usize,
    most_used: u64,
    /// The size of the file after half of the responses. The file never shrinks.
    file_at_half: u64,
    /// The size of the file at the end.
    file: u64,
}

async fn open_accounts(shop: &Shop) -> Result<()> {
    for customer in 0..CUSTOMERS {
        shop.open_account(&format!("customer-{customer}"), json!(REFILL / 100)).await?;
    }
    Ok(())
}

async fn place(shop: &Shop, number: usize, progress: &Progress) -> Result<()> {
    let planned = PlannedOrder::new(number);
    progress.placed.fetch_add(1, Ordering::Relaxed);
    let request = |_| shop.order_request(&planned.login, planned.json_amount()).header("prefer", "wait=60");
    let response = place_order_with_retries(shop, &planned.key, request).await?;
    ensure!(response.status == planned.status, "{} is {}: {response:?}", planned.key, planned.reason);
    let before = progress.responses.lock().expect("no client panics").insert(response.id(), number);
    ensure!(before.is_none(), "two orders have the number {}", response.id());
    Ok(())
}

async fn place_all(shop: &Shop, orders: usize, progress: &Progress) -> Result<()> {
    stream::iter(0..orders).map(|number| place(shop, number, progress)).buffer_unordered(CLIENTS).try_collect().await
}

/// Observes the store until the last order has a response and is deleted. At each moment, the number of live
/// orders must not exceed the number of orders placed within [`MAX_LIFETIME`], and the number of Events must not
/// exceed that of the orders placed within the Events' TTL.
async fn observe(shop: &Shop, etcd: &Etcd, orders: usize, progress: &Progress) -> Result<Observations> {
    let (started, mut seen, mut last_progress) = (Instant::now(), Observations::default(), Instant::now());
    // When how many had been placed.
    let mut history = vec![(started, 0)];
    loop {
        let (live, events, size) = (etcd.count_keys(ORDERS).await?, etcd.count_keys(EVENTS).await?, etcd.read_size().await?);
        let (now, placed, finished) = (Instant::now(), progress.placed.load(Ordering::Relaxed), progress.responses().len());
        let placed_within =
            |time: Duration| placed - history.iter().rev().find(|(then, _)| now - *then >= time).map_or(0, |(_, placed)| *placed);
        let (recent, recent_for_events) = (placed_within(MAX_LIFETIME), placed_within(EVENT_TTL + MAX_LIFETIME));
        if live > recent {
            let oldest = describe_oldest(shop).await?;
            panic!("{live} orders are live, {recent} were placed in the last {MAX_LIFETIME:?}; the oldest: {oldest}");
        }
        assert!(
            events <= EVENTS_PER_ORDER * recent_for_events + EVENTS_OF_OTHERS,
            "{events} Events of {recent_for_events} orders"
        );
        history.push((now, placed));
        seen.most_live = seen.most_live.max(live);
        seen.most_events = seen.most_events.max(events);
        seen.most_used = seen.most_used.max(size.used);
        seen.file = size.file;
        if finished <= orders / 2 {
            seen.file_at_half = size.file;
        }
        if last_progress.elapsed() >= Duration::from_secs(5) {
            last_progress = Instant::now();
            println!(
                "{:>4} s: {finished} responses, {live} live, {events} Events, etcd uses {} of {}",
                started.elapsed().as_secs(),
                mebibytes(size.used),
                mebibytes(size.file)
            );
        }
        if finished == orders && live == 0 {
            return Ok(seen);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The oldest live order, and the operator's log about it.
async fn describe_oldest(shop: &Shop) -> Result<String> {
    let order = shop.all_orders().await?.into_iter().min_by_key(|order| order.creation_timestamp().map(|time| time.0));
    let order = order.context("no order is live")?;
    let (name, log) = (order.name_any(), shop.stack.operators[0].process.output());
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&name)).collect();
    Ok(format!("{}\n{}", serde_json::to_string_pretty(&order)?, lines.join("\n")))
}

/// Lists all orders while orders are placed and deleted. Asserts that each order is listed once, and that no order with an
/// earlier response is missing.
async fn list_during_load(shop: &Shop, orders: usize, progress: &Progress) -> Result<()> {
    wait_for("half of the orders", Duration::from_secs(600), || async {
        (progress.responses().len() >= orders / 2).then_some(())
    })
    .await?;
    let before = progress.responses();
    let (listed, _) = list_all(shop).await?;
    let listed = by_id(&listed)?;
    let missing: Vec<_> = before.keys().filter(|id| !listed.contains_key(id)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} orders are not in the list, such as {:?}",
        missing.len(),
        before.len(),
        missing.first()
    );
    println!("listed {} orders during the load, {} of them had a response before", listed.len(), before.len());
    Ok(())
}

/// The orders by their ids.
fn by_id(orders: &[Value]) -> Result<HashMap<i64, &Value>> {
    let mut ids = HashMap::new();
    for order in orders {
        let id = order["id"].as_i64().with_context(|| format!("no id in {order}"))?;
        ensure!(ids.insert(id, order).is_none(), "order {id} is in the list twice");
    }
    Ok(ids)
}

/// Asserts that the list has each order with a response once, with its planned result, and no other order.
async fn assert_archived(shop: &Shop, progress: &Progress) -> Result<Vec<String>> {
    let (listed, cursors) = list_all(shop).await?;
    let (listed, responses) = (by_id(&listed)?, progress.responses());
    assert_eq!(listed.len(), responses.len(), "the list has exactly the orders with a response");
    for (id, number) in &responses {
        let (order, planned) = (listed.get(id).with_context(|| format!("order {id} is lost"))?, PlannedOrder::new(*number));
        assert_eq!(
            (&order["login"], &order["amount"], &order["reason"], &order["message_state"]),
            (&json!(planned.login), &planned.json_amount(), &json!(planned.reason), &json!("Sent")),
            "{}: {order}",
            planned.key
        );
    }
    Ok(cursors)
}

/// Asserts that the customers' balances are their refills minus their payments.
async fn assert_balances(shop: &Shop, orders: usize) -> Result<()> {
    let paid = |login: &str| -> u64 {
        let all = (0..orders).map(PlannedOrder::new);
        all.filter(|order| order.status == 200 && order.login == login).map(|order| order.amount).sum()
    };
    for customer in 0..CUSTOMERS {
        let login = format!("customer-{customer}");
        let balance = shop.balance(&login).await?.parse::<f64>()?;
        assert_eq!((balance * 100.0).round() as u64, REFILL - paid(&login), "{login}");
    }
    Ok(())
}

/// The value of a counter without labels, or the sum over all series with this label.
async fn sum_metric(shop: &Shop, url: &str, name: &str, label: &str) -> Result<f64> {
    let text = shop.http.get(url).send().await?.error_for_status()?.text().await?;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
}

/// The number of page requests to the archive.
async fn count_archive_pages(shop: &Shop) -> Result<f64> {
    let label = r#"endpoint="/archive/orders""#;
    sum_metric(shop, &shop.stack.archive.metrics_url(), "axum_http_requests_total{", label).await
}

/// Pages with twenty orders: the first page, one in the middle, and one of a login.
fn pages(cursors: &[String]) -> [(&'static str, String); 3] {
    let middle = cursors.get(cursors.len() / 2).map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    [
        ("the first page", "/orders?limit=20".to_owned()),
        ("a page in the middle", format!("/orders?limit=20{middle}")),
        ("a login's page", "/orders?limit=20&login=customer-3".to_owned()),
    ]
}

/// Asserts that a page of a long list takes no longer than one of a short list: each needs one
/// request to the archive and about the same time. The requests alternate,
/// so that other load on the machine affects both.
async fn assert_constant_page_time(long: (&Shop, &[String]), short: (&Shop, &[String])) -> Result<()> {
    const TIMES: usize = 60;
    let before = count_archive_pages(long.0).await?;
    for ((what, long_page), (_, short_page)) in pages(long.1).into_iter().zip(pages(short.1)) {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..TIMES {
            for ((shop, page), times) in [(long.0, &long_page), (short.0, &short_page)].into_iter().zip(&mut times) {
                let sent = Instant::now();
                let response = shop.get(page).await?;
                times.push(sent.elapsed());
                assert_eq!((response.status, response.json()["items"].as_array().map(Vec::len)), (200, Some(20)), "{what}");
            }
        }
        let [long, short] = times.map(median);
        let ratio = long.as_secs_f64() / short.as_secs_f64();
        println!("{what}: {long:.1?} of the long list, {short:.1?} of the short one: {ratio:.2} times");
        assert!(ratio <= MAX_RATIO, "{what} takes {long:?} of the long list, {short:?} of the short one");
    }
    let requests = count_archive_pages(long.0).await? - before;
    assert_eq!(requests, (3 * TIMES) as f64, "each page is one request to the archive");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Waits until etcd has no Events, and uses no more keys and space than before the orders.
async fn assert_store_is_as_before(etcd: &Etcd, (keys, size): (usize, Size)) -> Result<()> {
    let limit = EVENT_TTL * 2 + COMPACTION * 3;
    let shrunk = wait_for("etcd to use as little space as before", limit, || async {
        let (events, now) = (etcd.count_keys(EVENTS).await.ok()?, etcd.read_size().await.ok()?);
        (events == 0 && now.used <= size.used + SIZE_TOLERANCE).then_some(now)
    })
    .await;
    let now = etcd.read_size().await?;
    println!(
        "etcd uses {} at the end, {} before; its file has {}",
        mebibytes(now.used),
        mebibytes(size.used),
        mebibytes(now.file)
    );
    shrunk.with_context(|| format!("{size:?} before, {now:?} now"))?;
    let left = etcd.count_keys(ALL).await?.saturating_sub(keys);
    assert!(left <= 2, "{left} more keys are in etcd than before any order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_orders_are_processed_and_remain_only_in_the_archive() -> Result<()> {
    let orders = read_number("ORDERS", DEFAULT_ORDERS);
    let directory = tempfile::tempdir()?;
    let (compaction, event_ttl) = (format!("--etcd-compaction-interval={COMPACTION:?}"), format!("--event-ttl={EVENT_TTL:?}"));
    let cluster = Cluster::private_with(directory.path(), &[&compaction, &event_ttl]).await?;
    let etcd = Etcd::new(&cluster)?;
    let ttl = |mut options: orders_shop::StackOptions| {
        options.env.push(("operator", "TTL_SECONDS_AFTER_FINISHED", TTL.as_secs().to_string()));
        options
    };
    let (short, shop) = (start(&cluster, ttl).await?, start(&cluster, ttl).await?);
    open_accounts(&short).await?;
    open_accounts(&shop).await?;
    let before = (etcd.count_keys(ALL).await? - etcd.count_keys(EVENTS).await?, etcd.read_size().await?);

    let (few, short_progress) = ((orders / 20).max(500), Progress::default());
    place_all(&short, few, &short_progress).await?;
    let removed = wait_for("the first orders to be removed", MAX_LIFETIME, || async {
        (etcd.count_keys(ORDERS).await.ok()? == 0).then_some(())
    });
    if let Err(error) = removed.await {
        return Err(error.context(describe_oldest(&short).await?));
    }
    let short_cursors = assert_archived(&short, &short_progress).await?;

    let (started, progress) = (Instant::now(), Progress::default());
    let mut took = Duration::ZERO;
    let load = async {
        place_all(&shop, orders, &progress).await?;
        took = started.elapsed();
        println!("{orders} orders in {took:.1?}: {:.0} a second", orders as f64 / took.as_secs_f64());
        println!(
            "an Event takes {} bytes, an order {}",
            etcd.average_key_bytes(EVENTS).await?,
            etcd.average_key_bytes(ORDERS).await?
        );
        anyhow::Ok(())
    };
    let ((), seen, ()) =
        futures::try_join!(load, observe(&shop, &etcd, orders, &progress), list_during_load(&shop, orders, &progress))?;
    let last = started.elapsed() - took;
    println!("the last order was removed {last:.1?} after its response; {seen:?}");
    assert!(last <= MAX_LIFETIME, "the last order was live for {last:?}");
    // The number of live orders is rate × 18 s, of rate × time: less than a quarter, if the time is long enough.
    // After half of the time, orders are deleted as fast as they are placed, and the space that compaction freed suffices.
    if took > 2 * MAX_LIFETIME {
        assert!(seen.most_live <= orders / 4, "{} of {orders} orders were live at once", seen.most_live);
        assert!(seen.file <= seen.file_at_half * 3 / 2, "the file of etcd continued to grow: {seen:?}");
    }
    // The operator counts a deletion after the response of Kubernetes.
    let removed = wait_for("the count of all removals", MAX_LIFETIME, || async {
        let removed = sum_metric(&shop, &shop.stack.operators[0].metrics_url(), "orders_removed_total ", "").await;
        removed.ok().filter(|removed| *removed >= orders as f64)
    })
    .await?;
    assert_eq!(removed, orders as f64, "each order was removed once");

    let cursors = assert_archived(&shop, &progress).await?;
    assert_balances(&shop, orders).await?;
    assert_audit_passes(&shop, &cluster, orders).await?;
    assert_constant_page_time((&shop, &cursors), (&short, &short_cursors)).await?;
    assert_store_is_as_before(&etcd, before).await
}
