//! Tests failover under load: two servers of the public API and two operators, some of which are killed or
//! frozen.

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

use super::load::{audit, open, order_surely};
use crate::shop::{SOON, Shop, name};

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
const AT_WORK: usize = 150;

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
            let decide = |order: Order| {
                if order.outcome() != Outcome::Undecided && decided.insert(order.name_any()) {
                    seen.lock().expect("nobody panics with it").push(Instant::now());
                }
                future::ready(())
            };
            orders.filter_map(|order| future::ready(order.ok())).for_each(decide).await;
        });
        Outcomes { times, watching }
    }

    fn count(&self) -> usize {
        self.times.lock().expect("nobody panics with it").len()
    }

    /// Waits for this number of further outcomes.
    async fn more(&self, count: usize) -> Result<()> {
        let goal = self.count() + count;
        wait_for(&format!("{count} more orders to be decided"), SOON, || async { (self.count() >= goal).then_some(()) }).await
    }

    /// The longest time without an outcome since then.
    fn longest_pause_since(&self, then: Instant) -> Duration {
        let times = self.times.lock().expect("nobody panics with it");
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
struct Doors(Vec<String>);

impl Doors {
    /// Sends the order to this server first, and to the next one after each failure.
    async fn order(&self, shop: &Shop, first: usize, number: usize) -> Result<i64> {
        let login = format!("customer-{}", number % CUSTOMERS);
        let body = json!({"login": login, "e_mail": format!("{login}@example.com"), "id_cart": number, "amount": 1});
        let request = |attempt| {
            let url = format!("{}/orders/", self.0[(first + attempt) % self.0.len()]);
            shop.http.post(url).header("prefer", "wait=60").json(&body)
        };
        let answer = order_surely(shop, &format!("key-{number}"), request).await?;
        ensure!([200, 202].contains(&answer.status), "{answer:?}");
        Ok(answer.id())
    }
}

/// Places orders until `stop` is set, one in four at both servers concurrently. Returns the orders' numbers and ids.
async fn load(shop: &Shop, doors: &Doors, stop: &AtomicBool) -> Result<Vec<(usize, i64)>> {
    let next = AtomicUsize::new(0);
    let client = async || {
        let mut placed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            placed.push((number, doors.order(shop, number, number).await?));
            if number.is_multiple_of(4) {
                let both = future::try_join(doors.order(shop, 0, number + 1_000_000), doors.order(shop, 1, number + 1_000_000));
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
async fn lease(shop: &Shop) -> Option<LeaseSpec> {
    let leases: Api<Lease> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let spec = leases.get("orders-operator").await.ok()?.spec?;
    spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty()).then_some(spec)
}

/// The index of the operator that holds the Lease.
async fn leader(shop: &Shop) -> Option<usize> {
    lease(shop).await?.holder_identity?.trim_start_matches("operator-").parse().ok()
}

/// Waits until the leader has renewed the Lease. If the leader dies at this moment, the Lease remains valid longest.
async fn leader_that_just_renewed(shop: &Shop) -> Result<usize> {
    let before = wait_for("a leader", SOON, || lease(shop)).await?;
    wait_for("the leader to renew the Lease", SOON, || async {
        let now = lease(shop).await?;
        (now.renew_time > before.renew_time).then_some(())
    })
    .await?;
    leader(shop).await.context("nobody leads")
}

/// Waits until this operator leads.
async fn wait_for_leader(shop: &Shop, operator: usize) -> Result<()> {
    wait_for(&format!("operator {operator} to lead"), SOON, || async { (leader(shop).await? == operator).then_some(()) }).await
}

/// Asserts that outcomes continued within the time limit.
#[track_caller]
fn assert_pause(what: &str, outcomes: &Outcomes, since: Instant, limit: Duration) {
    let pause = outcomes.longest_pause_since(since);
    println!("{what}: {:.1} s without an outcome, of {:.0} allowed", pause.as_secs_f64(), limit.as_secs_f64());
    assert!(pause <= limit, "{what}: no order was decided for {pause:?}");
}

/// Asserts that each key has one order, which is paid, regardless of the server and the number of requests.
fn assert_one_order_a_key(placed: &[(usize, i64)], orders: &[Order]) {
    let mut ids: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
    for (number, id) in placed {
        ids.entry(*number).or_default().insert(*id);
    }
    let several: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(several.is_empty(), "keys with several orders: {several:?}");
    let answered: BTreeSet<String> = ids.values().flatten().map(|id| name(*id)).collect();
    let live: BTreeSet<String> = orders.iter().map(ResourceExt::name_any).collect();
    assert_eq!(answered.len(), ids.len(), "two keys never have the same order");
    assert!(live == answered, "{} orders for {} keys", live.len(), answered.len());
    let unpaid: Vec<_> = orders.iter().filter(|order| order.outcome() != Outcome::Paid).map(ResourceExt::name_any).collect();
    assert!(unpaid.is_empty(), "{unpaid:?}");
}

/// Asserts that each customer paid for each order once and has one mail about it. The mail server
/// and notify were available all the time, so a second mail would be an error.
async fn assert_charged_and_told_once(shop: &Shop, orders: &[Order]) -> Result<()> {
    let mails = shop.inbox.messages().await?;
    let different: HashSet<&str> = mails.iter().map(|mail| &*mail.message_id).collect();
    assert_eq!((mails.len(), different.len()), (orders.len(), orders.len()), "one mail an order, each another message");
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

/// Kills the leader, freezes and resumes the next one, and kills and restarts a server of the
/// public API, while orders are placed.
async fn trouble(shop: &Shop, operators: &mut [Service], api_server: &mut Service, outcomes: &Outcomes) -> Result<()> {
    outcomes.more(AT_WORK).await?;
    let since = Instant::now();
    outcomes.more(AT_WORK).await?;
    let slack = SLACK + 20 * outcomes.longest_pause_since(since);
    let killed = leader_that_just_renewed(shop).await?;
    let since = Instant::now();
    operators[killed].kill()?;
    wait_for_leader(shop, 1 - killed).await?;
    outcomes.more(AT_WORK).await?;
    assert_pause("the leader was killed", outcomes, since, LEASE + slack);
    operators[killed].start_again().await?;

    outcomes.more(AT_WORK).await?;
    let frozen = leader_that_just_renewed(shop).await?;
    assert_eq!(frozen, 1 - killed, "one that is started again does not take the Lease from another");
    let since = Instant::now();
    operators[frozen].process.signal(Signal::STOP)?;
    wait_for_leader(shop, killed).await?;
    outcomes.more(AT_WORK).await?;
    // The resumed operator has orders in progress and assumes that it is still the leader.
    operators[frozen].process.signal(Signal::CONT)?;
    outcomes.more(AT_WORK).await?;
    assert_pause("the leader stood still and came back", outcomes, since, LEASE + slack);
    assert_eq!(leader(shop).await, Some(killed), "one that comes back is no leader any more");

    let since = Instant::now();
    api_server.kill()?;
    outcomes.more(AT_WORK).await?;
    api_server.start_again().await?;
    outcomes.more(AT_WORK).await?;
    assert_pause("a server of the public API was killed", outcomes, since, slack);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_api_servers_and_two_operators_do_each_order_once_and_lose_no_more_than_the_lease_with_a_leader() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::private(directory.path()).await?;
    let mut shop = open(&cluster, |mut options| {
        options.env.push(("operator", "LEASE_SECONDS", LEASE.as_secs().to_string()));
        StackOptions { operators: 2, api_servers: 2, ..options }
    })
    .await?;
    for customer in 0..CUSTOMERS {
        shop.customer(&format!("customer-{customer}"), json!(REFILL)).await?;
    }
    // The operators are killed and restarted while the shop is in use.
    let mut operators = std::mem::take(&mut shop.stack.operators);
    let mut second = shop.stack.more_api_servers.pop().context("two servers of the public API")?;
    let doors = Doors(vec![shop.stack.api_server.url.clone(), second.url.clone()]);
    let (outcomes, stop) = (Outcomes::watch(shop.orders()), AtomicBool::new(false));
    let trouble = async {
        let came = trouble(&shop, &mut operators, &mut second, &outcomes).await;
        stop.store(true, Ordering::Relaxed);
        came
    };
    let (placed, ()) = future::try_join(load(&shop, &doors, &stop), trouble).await?;

    let orders = shop.settled().await?;
    println!("{} orders, {} answers", orders.len(), placed.len());
    assert_one_order_a_key(&placed, &orders);
    assert_charged_and_told_once(&shop, &orders).await?;
    audit(&shop, &cluster, orders.len()).await
}
