//! The workloads: fixed sequences of customers' requests, and their final states.

mod removal;

use anyhow::{Context, Result, bail};
use kube::{
    ResourceExt,
    api::{ListParams, PostParams},
};
use orders_crds::{ConditionType, Order, OrderSpec, Outcome, Reason, conditions};
use orders_testbed::{Message, wait_for};
use serde_json::Value;

pub use crate::shop::Workload;
use crate::{
    customer,
    effect::{Channel, Effect},
    persist::{SETTLE_LIMIT, persist},
    shop::Shop,
};

impl Workload {
    /// The workload in which an effect is numbered. In `Life`, the operator archives
    /// orders by the clock, one or several at once, so these effects differ between runs.
    pub fn of(effect: &Effect) -> Self {
        if Self::has(Workload::Removal, effect.channel) && (effect.channel != Channel::OperatorToKube || is_removal(effect)) {
            Workload::Removal
        } else {
            Workload::Life
        }
    }

    /// Whether the workload has effects over this channel.
    pub fn has(self, channel: Channel) -> bool {
        let archive = [Channel::ApiServerToArchive, Channel::OperatorToArchive, Channel::ArchiveToDatabase];
        match self {
            Workload::Life => !archive.contains(&channel),
            Workload::Removal => archive.contains(&channel) || channel == Channel::OperatorToKube,
        }
    }

    /// Runs the workload with this login, and waits until all of its orders have settled.
    ///
    /// # Errors
    /// If an order does not settle within [`SETTLE_LIMIT`].
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

/// The final state, in a form that does not depend on the time of the run and its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// One line for each order, in the order in which they were placed.
    pub orders: Vec<String>,
    /// The customer's balance.
    pub balance: String,
    /// The texts of the customer's messages and whether each was sent.
    pub messages: Vec<(String, bool)>,
    /// The orders' UIDs, which are their mails' Message-IDs.
    pub uids: Vec<String>,
    /// How often each order's mail arrived, set by [`count_mails`]. More than one mail is not an error in itself.
    pub mails: Vec<usize>,
    /// Mails to the customer under any other Message-ID.
    pub stray_mails: usize,
    /// The last status of the public API for each order: 200, 400, 404, or 202 if the outcome took too long.
    pub answers: Vec<u16>,
}

/// The amounts of a customer's orders: affordable, too expensive, of an unknown customer, and affordable without waiting.
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
    // The last order is refunded. The balance then suffices for the order that was too expensive.
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

/// Creates an order that requests its cancellation from the start.
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

/// Counts the customer's mails, after the components are idle.
///
/// # Errors
/// If the mail server does not respond.
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

/// All orders of the login, and of the unknown customer that belongs to it.
async fn all_of(shop: &Shop, login: &str) -> Result<Vec<Order>> {
    let mut orders = shop.orders().list(&ListParams::default()).await?.items;
    orders.retain(|order| order.spec.email == format!("{login}@example.com"));
    Ok(orders)
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

/// Waits until no work is left for an order.
///
/// # Errors
/// If that takes longer than [`SETTLE_LIMIT`]. The error contains the order's state.
pub async fn settled(shop: &Shop, name: &str) -> Result<Order> {
    let what = format!("{name} to be decided and its customer told");
    settled_if(shop, name, &what, |order| order.outcome() != Outcome::Undecided).await
}

/// Waits until an order has settled with this reason.
async fn settled_as(shop: &Shop, name: &str, reason: Reason) -> Result<Order> {
    let what = format!("{name} to be {reason} and its customer told");
    settled_if(shop, name, &what, |order| {
        let conditions = order.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        conditions::find(conditions, ConditionType::Succeeded).is_some_and(|condition| condition.reason == reason.as_str())
    })
    .await
}

/// Waits until an order fulfills a condition and no work is left for it.
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

/// Describes the state of an order in one line.
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

/// The mails about an order on the mail server. The order's UID is their Message-ID.
///
/// # Errors
/// If the mail server does not respond.
pub async fn mails_of(shop: &Shop, order: &Order) -> Result<Vec<Message>> {
    let uid = order.uid().context("a stored order has a UID")?;
    let mut mails = shop.inbox.messages().await?;
    mails.retain(|mail| is_about(mail, &uid));
    Ok(mails)
}

/// Whether a mail is about the order with this UID: its Message-ID is the UID, or begins with the UID and a dot.
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
