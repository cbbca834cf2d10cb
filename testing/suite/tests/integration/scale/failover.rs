//! Tests failover under load: two servers of the public API and two operators, some of which are killed or
//! suspended.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future, stream};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use orders_crds::{Order, Outcome};
use orders_shop::{Service, StackOptions};
use orders_testbed::{Cluster, Signal, wait_for};
use serde_json::json;
use tokio::task::JoinHandle;

use super::load::{assert_audit_passes, place_order_with_retries, start};
use crate::shop::{Shop, WAIT_TIMEOUT, name};

/// The number of clients, each of which places its next order after the response to the last one.
const CLIENTS: usize = 24;

const CUSTOMERS: usize = 4;

/// The balance of each customer. Each order costs 1.
const REFILL: usize = 100_000;

/// How long the Lease of a dead operator remains valid.
const LEASE: Duration = Duration::from_secs(6);

/// The additional time until outcomes continue: up to a second in which the next leader lets others try, and the
/// time to list all orders. On a slow machine the limit is higher: twenty times the longest pause without failures.
const SLACK: Duration = Duration::from_secs(4);

/// The number of outcomes that shows that the shop processes orders.
const PROGRESS: usize = 150;

/// The outcomes that a watch saw: the time at which each order was first seen as decided.
struct Outcomes {
    times: Arc<Mutex<Vec<Instant>>>,
    watching: JoinHandle<()>,
}

impl Outcomes {
    fn watch(orders: Api<Order>) -> Self {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = times.clone();
        let watching = tokio::spawn(async move {
            let mut decided = HashSet::new();
            let orders = watcher(orders, watcher::Config::default()).default_backoff().applied_objects();
            let record = |order: Order| {
                if order.outcome() != Outcome::Undecided && decided.insert(order.name_any()) {
                    seen.lock().expect("no holder of the lock panics").push(Instant::now());
                }
                future::ready(())
            };
            orders.filter_map(|order| future::ready(order.ok())).for_each(record).await;
        });
        Outcomes { times, watching }
    }

    fn count(&self) -> usize {
        self.times.lock().expect("no holder of the lock panics").len()
    }

    /// Waits for this number of further outcomes.
    async fn wait_more(&self, count: usize) -> Result<()> {
        let goal = self.count() + count;
        wait_for(&format!("{count} more orders to be decided"), WAIT_TIMEOUT, || async { (self.count() >= goal).then_some(()) })
            .await
    }

    /// The longest time without an outcome since then.
    fn longest_pause_since(&self, then: Instant) -> Duration {
        let times = self.times.lock().expect("no holder of the lock panics");
        let times: Vec<Instant> = std::iter::once(then).chain(times.iter().copied().filter(|time| *time >= then)).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The URLs of the servers of the public API, which do not change.
struct ApiServers(Vec<String>);

impl ApiServers {
    /// Sends the order to this server first, and to the next one after each failure.
    async fn place_order(&self, shop: &Shop, first: usize, number: usize) -> Result<i64> {
        let login = format!("customer-{}", number % CUSTOMERS);
        let body = json!({"login": login, "e_mail": format!("{login}@example.com"), "id_cart": number, "amount": 1});
        let request = |attempt| {
            let url = format!("{}/orders/", self.0[(first + attempt) % self.0.len()]);
            shop.http.post(url).header("prefer", "wait=60").json(&body)
        };
        let response = place_order_with_retries(shop, &format!("key-{number}"), request).await?;
        ensure!([200, 202].contains(&response.status), "{response:?}");
        Ok(response.id())
    }
}

/// Places orders until `stop` is set, one in four at both servers concurrently. Returns the orders' numbers and ids.
async fn run_load(shop: &Shop, api_servers: &ApiServers, stop: &AtomicBool) -> Result<Vec<(usize, i64)>> {
    let next = AtomicUsize::new(0);
    let client = async || {
        let mut placed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            placed.push((number, api_servers.place_order(shop, number, number).await?));
            if number.is_multiple_of(4) {
                let both = future::try_join(
                    api_servers.place_order(shop, 0, number + 1_000_000),
                    api_servers.place_order(shop, 1, number + 1_000_000),
                );
                let (one, other) = both.await?;
                placed.extend([(number + 1_000_000, one), (number + 1_000_000, other)]);
            }
        }
        anyhow::Ok(placed)
    };
    let placed: Vec<_> = stream::iter(0..CLIENTS).map(|_| client()).buffer_unordered(CLIENTS).try_collect().await?;
    Ok(placed.into_iter().flatten().collect())
}

/// The Lease, if an operator holds it.
async fn get_lease(shop: &Shop) -> Option<LeaseSpec> {
    let leases: Api<Lease> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let spec = leases.get("orders-operator").await.ok()?.spec?;
    spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty()).then_some(spec)
}

/// The index of the operator that holds the Lease.
async fn get_leader(shop: &Shop) -> Option<usize> {
    get_lease(shop).await?.holder_identity?.trim_start_matches("operator-").parse().ok()
}

/// Waits until the leader has renewed the Lease. If the leader dies at this moment, the Lease remains valid longest.
async fn wait_for_renewal(shop: &Shop) -> Result<usize> {
    let before = wait_for("a leader", WAIT_TIMEOUT, || get_lease(shop)).await?;
    wait_for("the leader to renew the Lease", WAIT_TIMEOUT, || async {
        let now = get_lease(shop).await?;
        (now.renew_time > before.renew_time).then_some(())
    })
    .await?;
    get_leader(shop).await.context("no operator holds the Lease")
}

/// Waits until this operator leads.
async fn wait_for_leader(shop: &Shop, operator: usize) -> Result<()> {
    wait_for(&format!("operator {operator} to lead"), WAIT_TIMEOUT, || async {
        (get_leader(shop).await? == operator).then_some(())
    })
    .await
}

/// Asserts that outcomes continued within the time limit.
#[track_caller]
fn assert_pause(what: &str, outcomes: &Outcomes, since: Instant, limit: Duration) {
    let pause = outcomes.longest_pause_since(since);
    println!("{what}: {:.1} s without an outcome, of {:.0} allowed", pause.as_secs_f64(), limit.as_secs_f64());
    assert!(pause <= limit, "{what}: no order was decided for {pause:?}");
}

/// Asserts that each key has one order, which is paid, regardless of the server and the number of requests.
fn assert_one_order_for_each_key(placed: &[(usize, i64)], orders: &[Order]) {
    let mut ids: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
    for (number, id) in placed {
        ids.entry(*number).or_default().insert(*id);
    }
    let several: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(several.is_empty(), "keys with several orders: {several:?}");
    let placed_names: BTreeSet<String> = ids.values().flatten().map(|id| name(*id)).collect();
    let live: BTreeSet<String> = orders.iter().map(ResourceExt::name_any).collect();
    assert_eq!(placed_names.len(), ids.len(), "each key has its own order");
    assert!(live == placed_names, "{} orders for {} keys", live.len(), placed_names.len());
    let unpaid: Vec<_> = orders.iter().filter(|order| order.outcome() != Outcome::Paid).map(ResourceExt::name_any).collect();
    assert!(unpaid.is_empty(), "{unpaid:?}");
}

/// Asserts that each customer paid for each order once and has one mail about it. The mail server
/// and notify were available all the time, so a second mail would be an error.
async fn assert_charged_and_notified_once(shop: &Shop, orders: &[Order]) -> Result<()> {
    let mails = shop.inbox.messages().await?;
    let different: HashSet<&str> = mails.iter().map(|mail| &*mail.message_id).collect();
    assert_eq!(
        (mails.len(), different.len()),
        (orders.len(), orders.len()),
        "one mail for each order, each with its own Message-ID"
    );
    for customer in 0..CUSTOMERS {
        let login = format!("customer-{customer}");
        let own = orders.iter().filter(|order| order.spec.login == login).count();
        assert_eq!(shop.balance(&login).await?, format!("{}.0", REFILL - own), "{login} has {own} orders");
        let address = format!("{login}@example.com");
        assert_eq!(mails.iter().filter(|mail| mail.to.contains(&address)).count(), own, "{login} has {own} orders");
        assert_eq!(shop.messages(&login).await?.len(), own, "{login} has {own} orders");
    }
    Ok(())
}

/// Kills the leader, suspends and resumes the next one, and kills and restarts a server of the
/// public API, while orders are placed.
async fn disrupt(shop: &Shop, operators: &mut [Service], api_server: &mut Service, outcomes: &Outcomes) -> Result<()> {
    outcomes.wait_more(PROGRESS).await?;
    let since = Instant::now();
    outcomes.wait_more(PROGRESS).await?;
    let slack = SLACK + 20 * outcomes.longest_pause_since(since);
    let killed = wait_for_renewal(shop).await?;
    let since = Instant::now();
    operators[killed].kill()?;
    wait_for_leader(shop, 1 - killed).await?;
    outcomes.wait_more(PROGRESS).await?;
    assert_pause("the leader was killed", outcomes, since, LEASE + slack);
    operators[killed].restart().await?;

    outcomes.wait_more(PROGRESS).await?;
    let suspended = wait_for_renewal(shop).await?;
    assert_eq!(suspended, 1 - killed, "a restarted operator does not take the Lease from the leader");
    let since = Instant::now();
    operators[suspended].process.signal(Signal::STOP)?;
    wait_for_leader(shop, killed).await?;
    outcomes.wait_more(PROGRESS).await?;
    // The resumed operator has orders in progress and assumes that it is still the leader.
    operators[suspended].process.signal(Signal::CONT)?;
    outcomes.wait_more(PROGRESS).await?;
    assert_pause("the leader was suspended and resumed", outcomes, since, LEASE + slack);
    assert_eq!(get_leader(shop).await, Some(killed), "a resumed operator is not the leader any more");

    let since = Instant::now();
    api_server.kill()?;
    outcomes.wait_more(PROGRESS).await?;
    api_server.restart().await?;
    outcomes.wait_more(PROGRESS).await?;
    assert_pause("a server of the public API was killed", outcomes, since, slack);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_api_servers_and_two_operators_process_each_order_once_and_a_lost_leader_costs_at_most_the_lease() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::private(directory.path()).await?;
    let mut shop = start(&cluster, |mut options| {
        options.env.push(("operator", "LEASE_SECONDS", LEASE.as_secs().to_string()));
        StackOptions { operators: 2, api_servers: 2, ..options }
    })
    .await?;
    for customer in 0..CUSTOMERS {
        shop.open_account(&format!("customer-{customer}"), json!(REFILL)).await?;
    }
    // The operators are killed and restarted while the shop is in use.
    let mut operators = std::mem::take(&mut shop.stack.operators);
    let mut second = shop.stack.more_api_servers.pop().context("two servers of the public API")?;
    let api_servers = ApiServers(vec![shop.stack.api_server.url.clone(), second.url.clone()]);
    let (outcomes, stop) = (Outcomes::watch(shop.orders()), AtomicBool::new(false));
    let disruptions = async {
        let result = disrupt(&shop, &mut operators, &mut second, &outcomes).await;
        stop.store(true, Ordering::Relaxed);
        result
    };
    let (placed, ()) = future::try_join(run_load(&shop, &api_servers, &stop), disruptions).await?;

    let orders = shop.wait_settled().await?;
    println!("{} orders, {} responses", orders.len(), placed.len());
    assert_one_order_for_each_key(&placed, &orders);
    assert_charged_and_notified_once(&shop, &orders).await?;
    assert_audit_passes(&shop, &cluster, orders.len()).await
}
