//! The workloads: fixed sequences of customers' requests, and their final states.

mod final_state;
mod removal;

use anyhow::{Context, Result, bail};
use kube::{
    ResourceExt,
    api::{ListParams, PostParams},
};
use orders_crds::{ConditionType, Order, OrderSpec, Outcome, Reason, conditions};
use orders_testbed::{Message, wait_for};

use final_state::{get_json, texts};

pub use self::final_state::FinalState;
pub use crate::system::Workload;
use crate::{
    customer,
    effect::{Channel, Effect},
    retry::{SETTLE_TIMEOUT, retry_until_definite},
    system::System,
};

impl Workload {
    /// The workload in which an effect is numbered. In `Life`, the operator archives orders and captures
    /// charges by the clock, one or several at once, so these effects differ between runs.
    pub fn of(effect: &Effect) -> Self {
        if ARCHIVE_CHANNELS.contains(&effect.channel) || AFTER_THE_OUTCOME.contains(&(effect.channel, &effect.operation)) {
            Workload::Removal
        } else {
            Workload::Life
        }
    }

    /// Whether the workload has effects over this channel.
    pub fn has(self, channel: Channel) -> bool {
        match self {
            Workload::Life => !ARCHIVE_CHANNELS.contains(&channel),
            Workload::Removal => {
                ARCHIVE_CHANNELS.contains(&channel) || AFTER_THE_OUTCOME.iter().any(|(other, _)| *other == channel)
            }
        }
    }

    /// Runs the workload with this login, and waits until all of its orders have settled.
    ///
    /// # Errors
    /// If an order does not settle within [`SETTLE_TIMEOUT`].
    pub async fn run(self, system: &System, login: &str) -> Result<FinalState> {
        match self {
            Workload::Life => run_life(system, login).await,
            Workload::Removal => removal::run(system, login).await,
        }
    }
}

/// The channels to the archive and to its database.
const ARCHIVE_CHANNELS: [Channel; 3] = [Channel::ApiServerToArchive, Channel::OperatorToArchive, Channel::ArchiveToDatabase];

/// The other effects that take place after an order is finished, by the clock.
const AFTER_THE_OUTCOME: [(Channel, &str); 3] = [
    (Channel::OperatorToKube, "DELETE orders"),
    (Channel::OperatorToBilling, "POST /billing/charges/capture"),
    (Channel::BillingToDatabase, "WITH captured"),
];

/// The amounts of a customer's orders: affordable, too expensive, of an unknown customer, and affordable without waiting.
const AMOUNTS: [usize; 4] = [30, 500, 5, 20];

async fn run_life(system: &System, login: &str) -> Result<FinalState> {
    customer::register(system, login, 100).await?;

    let mut final_state = FinalState::default();
    let mut placed = Vec::new();
    for (number, amount) in AMOUNTS.into_iter().enumerate() {
        let buyer = if number == 2 { format!("{login}-nobody") } else { login.to_owned() };
        let prefer = if number == 3 { "respond-async" } else { "" };
        let (status, id) = customer::place_for(system, login, &buyer, number, amount, prefer).await?;
        let name = format!("order-{id}");
        let order = wait_settled(system, &name).await?;
        placed.push((id, name));
        final_state.statuses.push(status);
        final_state.orders.push(describe(&order));
        final_state.uids.push(order.uid().context("a stored order has a UID")?);
    }
    let order = create_cancelled(system, login).await?;
    final_state.orders.push(describe(&order));
    final_state.uids.push(order.uid().context("a stored order has a UID")?);
    // The last order is refunded. The balance then suffices for the order that was too expensive.
    for (number, action, reason) in [(3, "cancel", Reason::Refunded), (1, "retry", Reason::Paid)] {
        if action == "retry" {
            customer::refill(system, login, 450, "second-refill").await?;
        }
        let (id, name) = &placed[number];
        let request = system.http.post(format!("{}/orders/{id}/{action}", system.url)).header("prefer", "wait=1");
        retry_until_definite(action, || request.try_clone(), "").await?;
        final_state.orders[number] = describe(&wait_settled_as(system, name, reason).await?);
    }
    let account = get_json(system, &format!("/billing/account/{login}")).await?;
    final_state.balance = account["balance"].to_string();
    let messages = get_json(system, &format!("/notify/log/{login}")).await?;
    let of_nobody = get_json(system, &format!("/notify/log/{login}-nobody")).await?;
    final_state.messages =
        texts(&messages).chain(texts(&of_nobody)).map(|(text, sent)| (text.replace(login, "CUSTOMER"), sent)).collect();
    let (actual, expected) = (orders_of(system, login).await?.len(), AMOUNTS.len() + 1);
    if actual != expected {
        bail!("{actual} orders exist, but {expected} were placed");
    }
    Ok(final_state)
}

/// Creates an order that requests its cancellation from the start.
async fn create_cancelled(system: &System, login: &str) -> Result<Order> {
    let name = format!("{login}-cancelled");
    let spec = OrderSpec {
        login: login.to_owned(),
        email: format!("{login}@example.com"),
        amount: "10".to_owned(),
        cancel_requested: Some(true),
        ..OrderSpec::default()
    };
    system.orders().create(&PostParams::default(), &Order::new(&name, spec)).await?;
    wait_settled_as(system, &name, Reason::Cancelled).await
}

/// Counts the customer's mails, after the components are idle.
///
/// # Errors
/// If the mail server does not respond.
pub async fn count_mails(system: &System, login: &str, final_state: &mut FinalState) -> Result<()> {
    let mails = system.inbox.messages_to(&format!("{login}@example.com")).await?;
    final_state.mails = final_state.uids.iter().map(|uid| mails.iter().filter(|mail| is_about(mail, uid)).count()).collect();
    final_state.stray_mails = mails.len() - final_state.mails.iter().sum::<usize>();
    Ok(())
}

/// All orders of the login, and of the unknown customer that belongs to it.
async fn orders_of(system: &System, login: &str) -> Result<Vec<Order>> {
    let mut orders = system.orders().list(&ListParams::default()).await?.items;
    orders.retain(|order| order.spec.email == format!("{login}@example.com"));
    Ok(orders)
}

/// Waits until no work is left for an order.
///
/// # Errors
/// If that takes longer than [`SETTLE_TIMEOUT`]. The error contains the order's state.
pub async fn wait_settled(system: &System, name: &str) -> Result<Order> {
    let what = format!("{name} to be decided and its customer notified");
    wait_settled_if(system, name, &what, |order| order.outcome() != Outcome::Undecided).await
}

/// Waits until an order has settled with this reason.
async fn wait_settled_as(system: &System, name: &str, reason: Reason) -> Result<Order> {
    let what = format!("{name} to be {reason} and its customer notified");
    wait_settled_if(system, name, &what, |order| {
        let conditions = order.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        conditions::find(conditions, ConditionType::Succeeded).is_some_and(|condition| condition.reason == reason.as_str())
    })
    .await
}

/// Waits until an order fulfills a condition and no work is left for it.
///
/// # Errors
/// As [`wait_settled`].
pub async fn wait_settled_if(system: &System, name: &str, what: &str, fulfills: impl Fn(&Order) -> bool) -> Result<Order> {
    let orders = system.orders();
    let result = wait_for(what, SETTLE_TIMEOUT, || async {
        let is_notified = |order: &Order| order.status.as_ref().is_some_and(|status| status.is_notified());
        orders
            .get_opt(name)
            .await
            .ok()
            .flatten()
            .filter(|order| fulfills(order) && is_notified(order) && order.finalizers().is_empty())
    })
    .await;
    match result {
        Ok(order) => Ok(order),
        Err(error) => {
            let state = orders.get_opt(name).await?.map_or("it does not exist".to_owned(), |order| describe(&order));
            bail!("{error}; {state}")
        }
    }
}

/// Describes the state of an order in one line.
pub fn describe(order: &Order) -> String {
    let status = order.status.clone().unwrap_or_default();
    let reason =
        |kind| conditions::find(&status.conditions, kind).map_or("none", |condition| condition.reason.as_str()).to_owned();
    format!(
        "amount {}: {} (Paid: {}, Notified: {}), attempt {}, charged {}, refunded {}, balance {}{}",
        order.spec.amount,
        reason(ConditionType::Succeeded),
        reason(ConditionType::Paid),
        reason(ConditionType::Notified),
        status.attempt(),
        status.charge.as_ref().map_or("nothing".to_owned(), |charge| charge.amount.to_string()),
        status.refunded.map_or("nothing".to_owned(), |amount| amount.to_string()),
        status.balance.map_or("unknown".to_owned(), |balance| balance.to_string()),
        status.retry.map_or(String::new(), |retry| format!(", retrying: {}", retry.last_error)),
    )
}

/// The mails about an order on the mail server. The order's UID is their Message-ID.
///
/// # Errors
/// If the mail server does not respond.
pub async fn mails_of(system: &System, order: &Order) -> Result<Vec<Message>> {
    let uid = order.uid().context("a stored order has a UID")?;
    let mut mails = system.inbox.messages().await?;
    mails.retain(|mail| is_about(mail, &uid));
    Ok(mails)
}

/// Whether a mail is about the order with this UID: its Message-ID is the UID, or begins with the UID and a dot.
fn is_about(mail: &Message, uid: &str) -> bool {
    mail.message_id.strip_prefix(uid).is_some_and(|suffix| suffix.starts_with(['@', '.']))
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
            (Channel::OperatorToBilling, "POST /billing/charges/capture", Workload::Removal),
            (Channel::BillingToDatabase, "COMMIT", Workload::Life),
            (Channel::BillingToDatabase, "WITH captured", Workload::Removal),
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
