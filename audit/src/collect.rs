//! Reading everything that is compared.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use orders_contracts::{
    billing::{ExportedAccount, ExportedTransaction, Summary},
    notify::KeyedEntry,
};
use orders_crds::{
    Money, Order, Outcome,
    order::{ATTEMPT_ANNOTATION, charge_key, message_key},
};
use orders_service::{http_client, token_file::TokenFile};
use reqwest::header::AUTHORIZATION;
use serde::{Deserialize, de::DeserializeOwned};

/// Orders read in one go from the Kubernetes API.
const ORDERS_PAGE: u32 = 500;

/// Larger than any right page, in bytes.
const MAX_PAGE: usize = 8 * 1024 * 1024;

/// An order, live or archived, as far as money and messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFacts {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// Its UID: what the keys of its charges and its messages begin with.
    pub uid: String,
    /// The customer.
    pub login: String,
    /// Where its message goes.
    pub email: String,
    /// Its amount; `None` if it cannot be read.
    pub amount: Option<Money>,
    /// What its status says.
    pub outcome: Outcome,
    /// Whether its status says that its message was sent.
    pub notified: bool,
    /// The key of that message.
    pub message_key: String,
    /// Whether it was asked to be cancelled, so that its charge may have been given back since.
    pub cancel_requested: bool,
    /// Whether another attempt was asked for, so that it may have been charged since.
    pub retry_requested: bool,
}

/// Everything that is compared.
///
/// Read while the installation works on, so the order of reading matters: the
/// orders first, then the ledger and the messages. What an order of `orders` says
/// is done was recorded before it said so, and so is found. `known` has orders
/// that were placed meanwhile as well.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The orders as they were first.
    pub orders: Vec<OrderFacts>,
    /// UIDs of all orders, live or archived, also of those that came during the reading.
    pub known: BTreeSet<String>,
    /// The ledger.
    pub transactions: Vec<ExportedTransaction>,
    /// Its accounts.
    pub accounts: Vec<ExportedAccount>,
    /// Its sum.
    pub summary: Summary,
    /// The message log.
    pub messages: Vec<KeyedEntry>,
}

/// A service to read from.
pub struct Source {
    /// Base URL.
    pub url: String,
    /// Shown with each request.
    pub token: TokenFile,
    /// For the requests.
    pub http: reqwest::Client,
}

/// Reads everything.
///
/// # Errors
/// If a part cannot be reached or does not answer as it should; the error names it.
pub async fn snapshot(
    client: Client,
    namespace: Option<&str>,
    billing: &Source,
    notify: &Source,
    archive: Option<&Source>,
) -> Result<Snapshot> {
    let orders: Api<Order> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    // In this order: an order that leaves for the archive in between is found there.
    let mut first = list(&orders).await?;
    let live: BTreeSet<String> = first.iter().map(|order| order.uid.clone()).collect();
    let of_interest = |order: &&Archived| namespace.is_none_or(|namespace| order.namespace == namespace);
    let archived = archived(archive).await?;
    let archived: Vec<OrderFacts> = archived.iter().filter(of_interest).map(|order| facts(&order.resource)).collect();
    first.extend(archived.into_iter().filter(|order| !live.contains(&order.uid)));
    let transactions = billing.pages("/billing/ledger/transactions", |last: &ExportedTransaction| last.id.to_string()).await?;
    let accounts = billing.pages("/billing/ledger/accounts", |last: &ExportedAccount| last.login.clone()).await?;
    let summary = billing.read("/billing/ledger/summary").await?;
    let messages = notify.pages("/notify/messages", |last: &KeyedEntry| last.entry.id.to_string()).await?;
    let mut known: BTreeSet<String> = first.iter().map(|order| order.uid.clone()).collect();
    let now = list(&orders).await?;
    known.extend(now.iter().map(|order| order.uid.clone()));
    known.extend(self::archived(archive).await?.into_iter().map(|order| order.uid));
    // What changed meanwhile is not what was looked at: it is for the next audit.
    let now: HashMap<&str, &OrderFacts> = now.iter().map(|order| (&*order.uid, order)).collect();
    first.retain(|order| now.get(&*order.uid).is_none_or(|now| *now == order));
    Ok(Snapshot { orders: first, known, transactions, accounts, summary, messages })
}

/// An order of the archive.
#[derive(Debug, Deserialize)]
struct Archived {
    uid: String,
    namespace: String,
    resource: Order,
}

async fn archived(archive: Option<&Source>) -> Result<Vec<Archived>> {
    match archive {
        Some(archive) => archive.pages("/archive/export", |last: &Archived| last.uid.clone()).await,
        None => Ok(Vec::new()),
    }
}

async fn list(orders: &Api<Order>) -> Result<Vec<OrderFacts>> {
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(ORDERS_PAGE);
    loop {
        let listed = orders.list(&page).await.context("the Orders cannot be listed")?;
        all.extend(listed.items.iter().map(facts));
        tracing::debug!(orders = all.len(), "read");
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

fn facts(order: &Order) -> OrderFacts {
    let status = order.status.clone().unwrap_or_default();
    let uid = order.uid().unwrap_or_default();
    OrderFacts {
        message_key: message_key(&charge_key(&uid, status.attempt()), status.outcome()),
        name: format!("{}/{}", order.namespace().unwrap_or_default(), order.name_any()),
        uid,
        login: order.spec.login.clone(),
        email: order.spec.email.clone(),
        amount: Money::positive(&order.spec.amount).ok(),
        cancel_requested: order.spec.cancel_requested.unwrap_or_default() || order.meta().deletion_timestamp.is_some(),
        retry_requested: order.annotations().get(ATTEMPT_ANNOTATION).is_some_and(|asked| *asked != status.attempt().to_string()),
        outcome: status.outcome(),
        notified: status.is_notified(),
    }
}

impl Source {
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let token = self.token.bearer().await.context("the service-account token cannot be read")?;
        let response = self.http.get(&url).header(AUTHORIZATION, token).send().await.with_context(|| url.clone())?;
        let status = response.status();
        let body = http_client::body(response, MAX_PAGE).await.with_context(|| url.clone())?;
        ensure!(status.is_success(), "{url} answered {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).with_context(|| format!("{url}: the answer cannot be read"))
    }

    /// Reads page after page until one is empty. `key` names the last row of a page.
    async fn pages<T: DeserializeOwned>(&self, path: &str, key: impl Fn(&T) -> String) -> Result<Vec<T>> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let after = all.last().map(&key).unwrap_or_default();
            let query = if after.is_empty() { String::new() } else { format!("?after={after}") };
            let page: Vec<T> = self.read(&format!("{path}{query}")).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
            tracing::debug!(path, rows = all.len(), "read");
        }
    }
}
