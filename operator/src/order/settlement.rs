//! Settles orders whose resource no longer exists: their charge is captured if their customer was
//! told of it, and voided otherwise.
//!
//! The first message under the charge's key decides this, because notify stores one message for a
//! key: either the message that the order is paid, or the message that it is cancelled. So two
//! operators that settle an order, or one that settles it while another one still makes a pass over
//! it, come to the same result.
//!
//! [`Settlement::observe_deletion`] and [`Settlement::settle_deleted`] settle an order as soon as the
//! operator sees that it is gone. If the operator dies before it has settled the order,
//! [`settlement_check`](super::settlement_check) finds the charge.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kube::{Client, Resource, ResourceExt};
use orders_crds::{ConditionType, Order, OrderStatus, Outcome, conditions, order::charge_key};
use tokio_util::task::TaskTracker;

use super::{
    decide::{Step, decide},
    execute,
    intent::Intent,
    pass::Pass,
    retention::Removals,
    status::StatusBuilder,
};
use crate::{
    kube::{OrderGuard, finalizer::SETTLEMENT_TIMEOUT},
    ports::{
        Billing, NoArchive, Notice, Notify, Payment, Purchase, UnknownResult,
        http::{
            archive::{Archive, NotArchived},
            authorizations::Authorizations,
            notify::{Claim, HttpNotify},
        },
    },
};

/// The maximum number of charges that are voided between two settlement checks. A larger number is a sign that
/// resources were lost, which an administrator should look at before money moves.
pub const MAX_VOIDS_PER_CHECK: u32 = 60;

/// The delay after the first failed attempt to settle a deleted order. It doubles with each further
/// failure.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);

/// The longest delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Settles orders whose resource no longer exists.
#[derive(Clone)]
pub struct Settlement {
    /// The Kubernetes API.
    pub(super) client: Client,
    pub(super) authorizations: Authorizations,
    pub(super) archive: Option<Archive>,
    billing: Arc<dyn Billing>,
    notify: Arc<dyn Notify>,
    /// Claims messages. Notify is called over HTTP for this in every style of interaction.
    messages: HttpNotify,
    removals: Removals,
    remaining_voids: Arc<AtomicU32>,
    tasks: TaskTracker,
}

/// The services with which orders are settled.
pub struct Services {
    /// Closes and refunds charges.
    pub billing: Arc<dyn Billing>,
    /// Notifies customers.
    pub notify: Arc<dyn Notify>,
    /// Claims messages.
    pub messages: HttpNotify,
    /// Captures and voids charges.
    pub authorizations: Authorizations,
    /// Archives settled orders, if there is an archive.
    pub archive: Option<Archive>,
}

impl Settlement {
    /// Settles orders with these services. `removals` are the removals that the operator makes itself.
    pub fn new(client: Client, services: Services, removals: Removals) -> Self {
        let Services { billing, notify, messages, authorizations, archive } = services;
        let remaining_voids = Arc::new(AtomicU32::new(MAX_VOIDS_PER_CHECK));
        let tasks = TaskTracker::new();
        Settlement { client, authorizations, archive, billing, notify, messages, removals, remaining_voids, tasks }
    }

    /// Settles an order whose deletion the watch reports, in a task of its own. A deletion that the
    /// operator made itself needs no settlement.
    pub fn observe_deletion(&self, order: &OrderGuard) {
        let uid = order.uid().unwrap_or_default();
        if self.removals.remove(&uid) {
            return;
        }
        // The charge of an order that cannot be read is found by the settlement check.
        let Ok(order) = &order.0 else { return };
        let status = order.status.clone().unwrap_or_default();
        if let Ok(purchase) = Purchase::read(order.key_uid(), status.attempt(), &order.spec) {
            let was_paid = status.outcome() == Outcome::Paid;
            let builder = StatusBuilder::new(status, order.metadata.generation);
            self.spawn(order.clone(), purchase, builder, was_paid);
        }
    }

    /// Settles an order that was deleted during a pass, in a task of its own.
    pub fn settle_deleted(&self, order: &OrderGuard, pass: Pass) {
        if let (Ok(order), Ok(purchase)) = (&order.0, pass.purchase) {
            self.spawn(order.clone(), purchase, pass.after, pass.before.outcome() == Outcome::Paid);
        }
    }

    /// `was_paid`: the status in the resource said that the order is paid.
    fn spawn(&self, order: Order, purchase: Purchase, builder: StatusBuilder, was_paid: bool) {
        let settlement = self.clone();
        self.tasks.spawn(async move {
            let name = order.name_any();
            let (mut purchase, mut builder, mut backoff) = (purchase, builder, INITIAL_BACKOFF);
            let settling = async {
                while let Err(error) = settlement.settle(&order, &mut purchase, &mut builder, was_paid).await {
                    tracing::warn!(order = name, %error, "the deleted order is not settled; retrying");
                    tokio::time::sleep(backoff).await;
                    backoff = MAX_BACKOFF.min(backoff * 2);
                }
            };
            if tokio::time::timeout(SETTLEMENT_TIMEOUT, settling).await.is_err() {
                metrics::counter!("orders_deletions_abandoned_total").increment(1);
                tracing::error!(order = name, key = purchase.key, "the deleted order could not be settled in time");
            } else {
                tracing::info!(order = name, outcome = ?builder.status.outcome(), "the deleted order is settled");
            }
        });
    }

    /// Settles an order that no longer exists, given its last status.
    async fn settle(
        &self,
        order: &Order,
        purchase: &mut Purchase,
        builder: &mut StatusBuilder,
        was_paid: bool,
    ) -> Result<(), UnknownResult> {
        let is_cancel_requested = order.spec.cancel_requested == Some(true);
        let intent = Intent::of(order.meta(), Some(&order.spec), &builder.status);
        if decide(&builder.status, &intent, Timestamp::now()) == Step::Retry {
            // A pass may have begun the requested attempt, although its status does not show it.
            builder.begin_attempt(intent.attempt, Timestamp::now());
            purchase.key = charge_key(order.key_uid(), intent.attempt);
        }
        match builder.status.outcome() {
            Outcome::Undecided | Outcome::Paid if is_cancel_requested => self.cancel(order, purchase, builder).await,
            Outcome::Undecided => {
                // A charge that is still on its way can no longer be made after this.
                let payment = self.billing.close(purchase).await?;
                let charged = matches!(payment, Payment::Charged { .. });
                builder.record_close(purchase, Ok(payment), true, Timestamp::now());
                if charged {
                    self.settle_charge(order, purchase, builder, false).await
                } else {
                    self.finish(order, purchase, builder).await
                }
            }
            Outcome::Paid if builder.status.is_notification_final() => self.record(order, purchase, builder).await,
            Outcome::Paid => self.settle_charge(order, purchase, builder, was_paid).await,
            Outcome::Refused(_) => self.finish(order, purchase, builder).await,
            Outcome::Unknown => self.archive(order, builder).await,
        }
    }

    /// Carries out a requested cancellation, and notifies the customer.
    async fn cancel(&self, order: &Order, purchase: &mut Purchase, builder: &mut StatusBuilder) -> Result<(), UnknownResult> {
        builder.status.retry = None;
        let intent = Intent { cancel: true, ..Intent::default() };
        // A cancelled order is not charged, so its name does not matter.
        let services = execute::Services { billing: &*self.billing, notify: &*self.notify, names: &NoArchive };
        let next = execute::execute(order.meta(), &order.spec, purchase, intent, builder, services).await;
        if next.is_some() && (builder.status.is_charge_open() || !is_message_stored(&builder.status)) {
            return Err(last_error(builder));
        }
        self.archive(order, builder).await
    }

    /// Notifies the customer of an outcome without a charge, and archives the order.
    async fn finish(&self, order: &Order, purchase: &Purchase, builder: &mut StatusBuilder) -> Result<(), UnknownResult> {
        if builder.status.is_message_open()
            && let Some(notice) = Notice::of(&builder.status)
        {
            let delivery = self.notify.notify(purchase, &notice).await?;
            builder.record_delivery(purchase, Ok(delivery), Timestamp::now());
        }
        self.archive(order, builder).await
    }

    /// Captures the charge of an order that is gone if its customer was told of it, and voids it
    /// otherwise. If `was_paid` (the resource's last status said that the order is paid), the message
    /// "paid" is requested first.
    pub(super) async fn settle_charge(
        &self,
        order: &Order,
        purchase: &Purchase,
        builder: &mut StatusBuilder,
        was_paid: bool,
    ) -> Result<(), UnknownResult> {
        if !was_paid && self.remaining_voids.load(Ordering::Relaxed) == 0 {
            return Err(UnknownResult(format!(
                "{MAX_VOIDS_PER_CHECK} charges were voided since the last check of the authorized charges"
            )));
        }
        let balance = builder.status.balance;
        match self.messages.claim(purchase, balance, was_paid).await? {
            Claim::Paid(delivery) => {
                builder.record_delivery(purchase, Ok(delivery), Timestamp::now());
                self.record(order, purchase, builder).await
            }
            Claim::Cancelled(delivery) => {
                // A copy: if a step fails, the next attempt begins with the claim again.
                let mut builder = builder.clone();
                builder.record_void(purchase, Timestamp::now());
                builder.record_delivery(purchase, Ok(delivery), Timestamp::now());
                // The record comes first: after the void, no list contains the charge any more.
                self.archive(order, &builder).await?;
                self.give_back(order, purchase).await
            }
        }
    }

    /// Archives a paid order, and captures its charge.
    async fn record(&self, order: &Order, purchase: &Purchase, builder: &StatusBuilder) -> Result<(), UnknownResult> {
        self.archive(order, builder).await?;
        self.capture(&purchase.key).await
    }

    /// Captures a charge.
    pub(super) async fn capture(&self, key: &str) -> Result<(), UnknownResult> {
        let captured = self.authorizations.capture(vec![key.to_owned()]).await?;
        metrics::counter!("orders_charges_captured_total").increment(captured as u64);
        Ok(())
    }

    /// Voids the charge. A charge that an earlier version made was captured at once, so it is refunded.
    async fn give_back(&self, order: &Order, purchase: &Purchase) -> Result<(), UnknownResult> {
        let is_repeated = match self.authorizations.void(&purchase.key).await? {
            Some(void) => void.repeated,
            None => {
                self.billing.refund(purchase).await?;
                false
            }
        };
        if !is_repeated {
            let _ = self.remaining_voids.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |voids| voids.checked_sub(1));
            metrics::counter!("orders_charges_voided_total").increment(1);
        }
        let (order, login, amount) = (order.name_any(), purchase.login.as_ref(), purchase.amount);
        tracing::warn!(order, key = purchase.key, login, %amount, "gave back the charge of an order that no longer exists");
        Ok(())
    }

    /// Archives the order with this status, if there is an archive and the order is decided.
    async fn archive(&self, order: &Order, builder: &StatusBuilder) -> Result<(), UnknownResult> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let order = Order { status: Some(builder.status.clone()), ..order.clone() };
        match archive.put(&[&order]).await {
            Ok(()) => Ok(()),
            Err(NotArchived::Unavailable(error) | NotArchived::Refused(error)) => Err(UnknownResult(error)),
        }
    }

    /// Allows as many voids again, for the next interval.
    pub(super) fn reset_voids(&self) {
        self.remaining_voids.store(MAX_VOIDS_PER_CHECK, Ordering::Relaxed);
    }

    /// Waits until all deleted orders are settled. Call this after the last pass.
    pub async fn finish_all(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        // This replica may become the leader again.
        self.tasks.reopen();
    }
}

/// Whether notify has the customer's message, so that it delivers the message by itself.
fn is_message_stored(status: &OrderStatus) -> bool {
    conditions::find(&status.conditions, ConditionType::Notified).is_some_and(|condition| condition.status != "Unknown")
}

fn last_error(builder: &StatusBuilder) -> UnknownResult {
    let retry = builder.status.retry.as_ref();
    UnknownResult(retry.map_or_else(|| "a step failed".to_owned(), |retry| retry.last_error.clone()))
}
