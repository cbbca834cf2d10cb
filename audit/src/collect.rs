//! Reads the data that the audit compares, from the Kubernetes API and the services.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use orders_contracts::{
    billing::{ExportedAccount, ExportedTransaction, Summary},
    notify::ExportedMessage,
};
use orders_crds::{
    Money, Order, Outcome,
    order::{ATTEMPT_ANNOTATION, charge_key, message_key},
};
use orders_service::{http_client, token_file::TokenFile};
use reqwest::header::AUTHORIZATION;
use serde::{Deserialize, de::DeserializeOwned};

/// The maximum number of orders in one response of the Kubernetes API.
const ORDERS_PAGE: u32 = 500;

/// The maximum size of a page, in bytes. It is larger than any valid page.
const MAX_PAGE: usize = 8 * 1024 * 1024;

/// The facts about a live or archived order that concern money and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFacts {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// The UID that the keys of the charges and the messages of the order begin with: its own, or that
    /// of the order whose outcome it took over.
    pub uid: String,
    /// The customer.
    pub login: String,
    /// The e-mail address of the order's messages.
    pub email: String,
    /// The amount; `None` if it cannot be parsed.
    pub amount: Option<Money>,
    /// The outcome that the status shows.
    pub outcome: Outcome,
    /// Whether the status shows that the message was sent.
    pub is_notified: bool,
    /// The key of the message.
    pub message_key: String,
    /// Whether a cancellation was requested. In this case, the charge may have been refunded since.
    pub cancel_requested: bool,
    /// Whether another attempt was requested. In this case, the order may have been charged since.
    pub retry_requested: bool,
    /// Whether the order is only in the archive.
    pub is_archived: bool,
}

/// The data that the audit compares.
///
/// The installation continues to work while the audit reads it, so the sequence of the reads
/// matters: the audit reads the orders first, then the ledger and the messages. The services record
/// each charge and each message before the status of the order shows it, so the audit finds the
/// record. `all_uids` also contains the orders that were placed during the reads.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the audit began to read.
    pub time: Timestamp,
    /// The orders as the audit read them first, except those that changed during the reads.
    pub orders: Vec<OrderFacts>,
    /// The UIDs of all orders, live or archived, including those that were placed during the reads.
    pub all_uids: BTreeSet<String>,
    /// The transactions of the ledger.
    pub transactions: Vec<ExportedTransaction>,
    /// The accounts of the ledger.
    pub accounts: Vec<ExportedAccount>,
    /// The totals of the ledger.
    pub summary: Summary,
    /// The messages of the log.
    pub messages: Vec<ExportedMessage>,
}

/// A service that the audit reads.
pub struct Source {
    /// Base URL.
    pub url: String,
    /// The token that each request sends.
    pub token: TokenFile,
    /// The HTTP client for the requests.
    pub http: reqwest::Client,
}

/// Reads a snapshot of the installation.
///
/// # Errors
/// Fails if a source cannot be reached or its response is invalid. The error names the source: the
/// Kubernetes API or a service.
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
    // List the live orders before the archived orders: an order that is archived in between is
    // found in the archive.
    let time = Timestamp::now();
    let mut first = list_orders(&orders).await?;
    let live: BTreeSet<String> = first.iter().map(|order| order.uid.clone()).collect();
    let is_in_namespace = |order: &&ArchivedRow| namespace.is_none_or(|namespace| order.namespace == namespace);
    let archived = read_archived(archive).await?;
    // An order that took over the outcome of an earlier one has its keys. The newer one counts.
    let mut archived: Vec<&Order> = archived.iter().filter(is_in_namespace).map(|order| &order.resource).collect();
    archived.sort_by_key(|order| order.creation_timestamp());
    let newest: BTreeMap<&str, &Order> = archived.into_iter().map(|order| (order.key_uid(), order)).collect();
    let archived = newest.into_values().map(|order| order_facts(order, true));
    first.extend(archived.filter(|order| !live.contains(&order.uid)));
    let transactions = billing.pages("/billing/ledger/transactions", |last: &ExportedTransaction| last.id.to_string()).await?;
    let accounts = billing.pages("/billing/ledger/accounts", |last: &ExportedAccount| last.login.clone()).await?;
    let summary = billing.read("/billing/ledger/summary").await?;
    let messages = notify.pages("/notify/messages", |last: &ExportedMessage| last.entry.id.to_string()).await?;
    let mut all_uids: BTreeSet<String> = first.iter().map(|order| order.uid.clone()).collect();
    let second = list_orders(&orders).await?;
    all_uids.extend(second.iter().map(|order| order.uid.clone()));
    all_uids.extend(read_archived(archive).await?.into_iter().map(|order| order.uid));
    // Leave out the orders that changed during the reads. The next audit checks them.
    let second: HashMap<&str, &OrderFacts> = second.iter().map(|order| (&*order.uid, order)).collect();
    first.retain(|order| second.get(&*order.uid).is_none_or(|second| *second == order));
    Ok(Snapshot { time, orders: first, all_uids, transactions, accounts, summary, messages })
}

/// A row of the archive's export.
#[derive(Debug, Deserialize)]
struct ArchivedRow {
    uid: String,
    namespace: String,
    resource: Order,
}

async fn read_archived(archive: Option<&Source>) -> Result<Vec<ArchivedRow>> {
    match archive {
        Some(archive) => archive.pages("/archive/export", |last: &ArchivedRow| last.uid.clone()).await,
        None => Ok(Vec::new()),
    }
}

async fn list_orders(orders: &Api<Order>) -> Result<Vec<OrderFacts>> {
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(ORDERS_PAGE);
    loop {
        let listed = orders.list(&page).await.context("the Orders cannot be listed")?;
        all.extend(listed.items.iter().map(|order| order_facts(order, false)));
        tracing::debug!(orders = all.len(), "read");
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

fn order_facts(order: &Order, is_archived: bool) -> OrderFacts {
    let status = order.status.clone().unwrap_or_default();
    let uid = order.key_uid().to_owned();
    OrderFacts {
        message_key: message_key(&charge_key(&uid, status.attempt()), status.outcome()),
        name: format!("{}/{}", order.namespace().unwrap_or_default(), order.name_any()),
        uid,
        login: order.spec.login.clone(),
        email: order.spec.email.clone(),
        amount: Money::positive(&order.spec.amount).ok(),
        cancel_requested: order.spec.cancel_requested.unwrap_or_default() || order.meta().deletion_timestamp.is_some(),
        retry_requested: order
            .annotations()
            .get(ATTEMPT_ANNOTATION)
            .is_some_and(|requested| *requested != status.attempt().to_string()),
        outcome: status.outcome(),
        is_notified: status.is_notified(),
        is_archived,
    }
}

impl Source {
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let token = self.token.bearer().await.context("the service-account token cannot be read")?;
        let response = self.http.get(&url).header(AUTHORIZATION, token).send().await.with_context(|| url.clone())?;
        let status = response.status();
        let body = http_client::body(response, MAX_PAGE).await.with_context(|| url.clone())?;
        ensure!(status.is_success(), "{url} responded with {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).with_context(|| format!("{url}: the response cannot be parsed"))
    }

    /// Reads page after page until a page is empty. `key` returns the key of the last row of a
    /// page.
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
