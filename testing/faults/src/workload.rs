//! What customers do, the same each time, and how it ends.

mod removal;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::{
    ResourceExt,
    api::{ListParams, PostParams},
};
use orders_crds::{ConditionType, Order, OrderSpec, Outcome, Reason, conditions};
use orders_testbed::{Message, wait_for};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

use crate::{
    customer,
    effect::{Channel, Effect},
    shop::Shop,
};

/// How long anything may take to settle after a fault: several times the operator's longest pause, which is a minute, so
/// that a slow machine may make an attempt in vain.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(300);

/// What customers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// They place orders, cancel one and have another charged again.
    Life,
    /// They place an order, wait until it is archived and removed, and ask for it again.
    Removal,
}

impl Workload {
    /// In which of them an effect is numbered. While orders live the operator archives
    /// them by the clock, one or several at once, which no two runs do alike.
    pub fn of(effect: &Effect) -> Self {
        if Self::has(Workload::Removal, effect.channel) && (effect.channel != Channel::OperatorToKube || is_removal(effect)) {
            Workload::Removal
        } else {
            Workload::Life
        }
    }

    /// Whether it has effects over this channel.
    pub fn has(self, channel: Channel) -> bool {
        let archive = [Channel::ApiServerToArchive, Channel::OperatorToArchive, Channel::ArchiveToDatabase];
        match self {
            Workload::Life => !archive.contains(&channel),
            Workload::Removal => archive.contains(&channel) || channel == Channel::OperatorToKube,
        }
    }

    /// Does it under this login, and waits until all of it has settled.
    ///
    /// # Errors
    /// If something does not settle within [`SETTLE_LIMIT`].
    pub async fn run(self, shop: &Shop, login: &str) -> Result<Ending> {
        match self {
            Workload::Life => life(shop, login).await,
            Workload::Removal => removal::run(shop, login).await,
        }
    }
}

fn is_removal(effect: &Effect) -> bool {
    effect.operation == "DELETE orders"
}

/// How it ended, in words that do not depend on when and under which names it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// One line an order, in the order of placing.
    pub orders: Vec<String>,
    /// The customer's balance.
    pub balance: String,
    /// The texts of the customer's messages and whether each was sent.
    pub messages: Vec<(String, bool)>,
    /// The orders' UIDs, which are their mails' Message-IDs.
    pub uids: Vec<String>,
    /// How often each order's mail arrived, once [`count_mails`] counted. More than once is not wrong of itself.
    pub mails: Vec<usize>,
    /// Mails to the customer under any other Message-ID.
    pub stray_mails: usize,
    /// What the public API said at last about each order: 200, 400, 404, or 202 when it took too long.
    pub answers: Vec<u16>,
}

/// A customer's orders: affordable, too dear, of nobody, and affordable without waiting.
const AMOUNTS: [usize; 4] = [30, 500, 5, 20];

async fn life(shop: &Shop, login: &str) -> Result<Ending> {
    customer::register(shop, login, 100).await?;

    let mut ending = Ending::default();
    let mut placed = Vec::new();
    for (number, amount) in AMOUNTS.into_iter().enumerate() {
        let buyer = if number == 2 { format!("{login}-nobody") } else { login.to_owned() };
        let prefer = if number == 3 { "respond-async" } else { "" };
        let (status, id) = customer::place_for(shop, login, &buyer, number, amount, prefer).await?;
        let name = format!("order-{id}");
        let order = settled(shop, &name).await?;
        placed.push((id, name));
        ending.answers.push(status);
        ending.orders.push(describe(&order));
        ending.uids.push(order.uid().context("a stored order has a UID")?);
    }
    let order = cancelled_from_the_start(shop, login).await?;
    ending.orders.push(describe(&order));
    ending.uids.push(order.uid().context("a stored order has a UID")?);
    // The last one is given back, and then there is enough for the one that was too dear.
    for (number, what, reason) in [(3, "cancel", Reason::Refunded), (1, "retry", Reason::Paid)] {
        if what == "retry" {
            customer::refill(shop, login, 450, "second-refill").await?;
        }
        let (id, name) = &placed[number];
        let request = shop.http.post(format!("{}/orders/{id}/{what}", shop.url)).header("prefer", "wait=1");
        persist(what, || request.try_clone(), "").await?;
        ending.orders[number] = describe(&settled_as(shop, name, reason).await?);
    }
    let account = look(shop, &format!("/billing/account/{login}")).await?;
    ending.balance = account["balance"].to_string();
    let messages = look(shop, &format!("/notify/log/{login}")).await?;
    let of_nobody = look(shop, &format!("/notify/log/{login}-nobody")).await?;
    ending.messages =
        texts(&messages).chain(texts(&of_nobody)).map(|(text, sent)| (text.replace(login, "CUSTOMER"), sent)).collect();
    let (exist, expected) = (all_of(shop, login).await?.len(), AMOUNTS.len() + 1);
    if exist != expected {
        bail!("{exist} orders exist where {expected} were placed");
    }
    Ok(ending)
}

/// An order that is to be cancelled before anybody has seen it.
async fn cancelled_from_the_start(shop: &Shop, login: &str) -> Result<Order> {
    let name = format!("{login}-cancelled");
    let spec = OrderSpec {
        login: login.to_owned(),
        email: format!("{login}@example.com"),
        amount: "10".to_owned(),
        cancel_requested: Some(true),
        ..OrderSpec::default()
    };
    shop.orders().create(&PostParams::default(), &Order::new(&name, spec)).await?;
    settled_as(shop, &name, Reason::Cancelled).await
}

/// Counts the customer's mails, when everything is at rest.
///
/// # Errors
/// If the mail server does not answer.
pub async fn count_mails(shop: &Shop, login: &str, ending: &mut Ending) -> Result<()> {
    let mails = shop.inbox.messages_to(&format!("{login}@example.com")).await?;
    ending.mails = ending.uids.iter().map(|uid| mails.iter().filter(|mail| is_about(mail, uid)).count()).collect();
    ending.stray_mails = mails.len() - ending.mails.iter().sum::<usize>();
    Ok(())
}

fn texts(messages: &Value) -> impl Iterator<Item = (String, bool)> {
    let messages = messages.as_array().into_iter().flatten();
    messages.map(|m| (m["text"].as_str().unwrap_or_default().to_owned(), m["is_sended"] == true))
}

/// All orders of a login and of nobody beside it.
async fn all_of(shop: &Shop, login: &str) -> Result<Vec<Order>> {
    let mut orders = shop.orders().list(&ListParams::default()).await?.items;
    orders.retain(|order| order.spec.email == format!("{login}@example.com"));
    Ok(orders)
}

/// Sends a request under a key, if it has one, until it gets an answer that says what became of it, as a careful client would.
///
/// # Errors
/// If it does not within [`SETTLE_LIMIT`].
pub async fn persist(what: &str, request: impl Fn() -> Option<RequestBuilder>, key: &str) -> Result<(u16, Value)> {
    wait_for(&format!("a definite answer to {what}"), SETTLE_LIMIT, || async {
        let request = if key.is_empty() { request()? } else { request()?.header("idempotency-key", key) };
        let response = request.send().await.ok()?;
        let status = response.status();
        let body: Value = response.json().await.ok()?;
        // Without a key a conflict says that it is done already.
        let conflict = status == StatusCode::CONFLICT && !key.is_empty();
        let indefinite = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || conflict;
        (!indefinite).then(|| (status.as_u16(), body))
    })
    .await
}

async fn look(shop: &Shop, path: &str) -> Result<Value> {
    wait_for(&format!("an answer to GET {path}"), SETTLE_LIMIT, || async {
        let response = shop.http.get(format!("{}{path}", shop.url)).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        response.json().await.ok()
    })
    .await
}

/// Waits until nothing is left to do for an order.
///
/// # Errors
/// If that takes longer than [`SETTLE_LIMIT`]; the error says how far it came.
pub async fn settled(shop: &Shop, name: &str) -> Result<Order> {
    let what = format!("{name} to be decided and its customer told");
    settled_if(shop, name, &what, |order| order.outcome() != Outcome::Undecided).await
}

/// The same, when the order is to end like this.
async fn settled_as(shop: &Shop, name: &str, reason: Reason) -> Result<Order> {
    let what = format!("{name} to be {reason} and its customer told");
    settled_if(shop, name, &what, |order| {
        let conditions = order.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        conditions::find(conditions, ConditionType::Succeeded).is_some_and(|condition| condition.reason == reason.as_str())
    })
    .await
}

/// Waits until an order is as wanted and nothing is left to do for it.
///
/// # Errors
/// As [`settled`].
pub async fn settled_if(shop: &Shop, name: &str, what: &str, is_it: impl Fn(&Order) -> bool) -> Result<Order> {
    let orders = shop.orders();
    let done = wait_for(what, SETTLE_LIMIT, || async {
        let told = |order: &Order| order.status.as_ref().is_some_and(|status| status.is_notified());
        orders.get_opt(name).await.ok().flatten().filter(|order| is_it(order) && told(order) && order.finalizers().is_empty())
    })
    .await;
    match done {
        Ok(order) => Ok(order),
        Err(error) => {
            let stands = orders.get_opt(name).await?.map_or("it does not exist".to_owned(), |order| describe(&order));
            bail!("{error}; {stands}")
        }
    }
}

/// How an order stands, in one line.
pub fn describe(order: &Order) -> String {
    let status = order.status.clone().unwrap_or_default();
    let reason =
        |kind| conditions::find(&status.conditions, kind).map_or("none", |condition| condition.reason.as_str()).to_owned();
    format!(
        "amount {}: {} (Paid: {}, Notified: {}), attempt {}, charged {}, given back {}, balance {}{}",
        order.spec.amount,
        reason(ConditionType::Succeeded),
        reason(ConditionType::Paid),
        reason(ConditionType::Notified),
        status.attempt(),
        status.charge.as_ref().map_or("nothing".to_owned(), |charge| charge.amount.to_string()),
        status.refunded.map_or("nothing".to_owned(), |amount| amount.to_string()),
        status.balance.map_or("unknown".to_owned(), |balance| balance.to_string()),
        status.retry.map_or(String::new(), |retry| format!(", trying again: {}", retry.last_error)),
    )
}

/// The mails about an order that the mail server has: its UID is their Message-ID.
///
/// # Errors
/// If the mail server does not answer.
pub async fn mails_of(shop: &Shop, order: &Order) -> Result<Vec<Message>> {
    let uid = order.uid().context("a stored order has a UID")?;
    let mut mails = shop.inbox.messages().await?;
    mails.retain(|mail| is_about(mail, &uid));
    Ok(mails)
}

/// Whether a mail is about the order with this UID: its Message-ID is the UID, or begins with it and a point.
fn is_about(mail: &Message, uid: &str) -> bool {
    mail.message_id.strip_prefix(uid).is_some_and(|rest| rest.starts_with(['@', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_effect_is_numbered_in_one_workload_that_has_its_channel() {
        for (channel, operation, workload) in [
            (Channel::OperatorToKube, "PATCH orders/status", Workload::Life),
            (Channel::OperatorToKube, "DELETE orders", Workload::Removal),
            (Channel::OperatorToBilling, "POST /billing/withdraw", Workload::Life),
            (Channel::OperatorToArchive, "POST /archive/orders", Workload::Removal),
            (Channel::ApiServerToArchive, "GET orders", Workload::Removal),
            (Channel::ArchiveToDatabase, "COMMIT", Workload::Removal),
        ] {
            let effect = Effect { channel, operation: operation.to_owned(), occurrence: 1 };
            assert_eq!(Workload::of(&effect), workload, "{effect}");
            assert!(workload.has(channel), "{effect}");
        }
    }
}
