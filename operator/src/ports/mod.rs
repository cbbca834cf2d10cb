//! The interfaces to billing and notify. Each service has one trait, so that another style of
//! interaction is another implementation and not another controller. [`interaction`] chooses the
//! implementation; [`http`] and [`nats`] contain the implementations. [`ledger_gate`] holds calls back.

pub mod http;
pub mod interaction;
pub mod ledger_gate;
pub mod nats;
pub mod purchase;

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orders_crds::{Login, Money, Order, OrderStatus, Outcome, Refusal, RetryStep};

pub use purchase::Purchase;

/// A reply that may arrive after its timeout. Resolves to `true` when one is available, to `false`
/// if another caller starts waiting for the same key.
pub type LateReply = BoxFuture<'static, bool>;

/// Billing's definite reply about a charge. A refusal is a reply, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payment {
    /// The account was charged, now or when this key was first seen.
    Charged {
        /// The balance right after the charge.
        balance: Money,
    },
    /// The account was not and will not be charged for this key.
    Refused {
        /// [`Refusal::InsufficientFunds`], [`Refusal::AccountNotFound`], [`Refusal::Cancelled`], or
        /// [`Refusal::AlreadyExists`] if an earlier order of this name was charged.
        refusal: Refusal,
        /// The balance at the refusal, if there is an account.
        balance: Option<Money>,
    },
}

/// The state of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The mail server accepted the message.
    Sent,
    /// Notify stored the message and is trying to deliver it.
    Delivering {
        /// Why the last attempt failed, if one did.
        last_error: Option<String>,
    },
    /// The message was refused; another attempt would fail as well.
    Undeliverable {
        /// Why it was refused.
        error: String,
    },
    /// Delivery failed too often and was stopped. The message is resent on request.
    DeadLettered {
        /// Why the last attempt failed.
        error: String,
    },
}

/// The content of a message to a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The outcome of the order.
    pub outcome: Outcome,
    /// The balance right after the charge or at the refusal.
    pub balance: Option<Money>,
    /// How often a resend of the message was requested after its delivery had been stopped.
    pub resends: i32,
}

impl Notice {
    /// The notice of an order with this status; `None` while its outcome is not known.
    pub fn of(status: &OrderStatus) -> Option<Self> {
        let outcome = status.outcome();
        match outcome {
            Outcome::Undecided | Outcome::Unknown => None,
            Outcome::Paid | Outcome::Refused(_) => {
                Some(Notice { outcome, balance: status.balance, resends: status.resends.unwrap_or(0) })
            }
        }
    }
}

/// The result of a request is unknown: the request may or may not have had its effect. Repeat it
/// with the same key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownResult(pub String);

/// The operations of the billing service that the operator needs for an order.
#[async_trait]
pub trait Billing: Send + Sync {
    /// Charges a purchase, once for its key.
    ///
    /// # Errors
    /// [`UnknownResult`], after which the charge is unknown.
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, UnknownResult>;

    /// Closes the charge of a purchase, so that it can no longer be made, and returns its
    /// outcome: a charge that was decided before stays as it is.
    ///
    /// # Errors
    /// [`UnknownResult`], after which the charge is unknown.
    async fn close(&self, purchase: &Purchase) -> Result<Payment, UnknownResult>;

    /// Refunds the charge of a purchase as a whole, once, and returns the balance right after.
    ///
    /// # Errors
    /// [`UnknownResult`], after which the refund is unknown.
    async fn refund(&self, purchase: &Purchase) -> Result<Money, UnknownResult>;

    /// The late reply to this step, which timed out. `None` for a style whose replies never arrive
    /// late. The next call for the step returns the reply.
    fn late_reply(&self, _step: RetryStep, _purchase: &Purchase) -> Option<LateReply> {
        None
    }
}

/// The operations of the notify service that the operator needs.
#[async_trait]
pub trait Notify: Send + Sync {
    /// Requests the message to the customer, once for the message's key, and returns its state.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown whether the message is stored.
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, UnknownResult>;

    /// Like [`Billing::late_reply`], for the final state of a message.
    fn late_reply(&self, _purchase: &Purchase, _notice: &Notice) -> Option<LateReply> {
        None
    }
}

/// The archive's answer about the name of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum NameLookup {
    /// No other order had this name.
    Free,
    /// The newest archived order with this name.
    Taken(Box<Order>),
}

/// The names that the archive has. A name is good once.
#[async_trait]
pub trait Names: Send + Sync {
    /// Looks up the newest archived order with the name of this order.
    ///
    /// # Errors
    /// [`UnknownResult`], after which it is unknown whether the name was used before.
    async fn look_up(&self, order: &ObjectMeta) -> Result<NameLookup, UnknownResult>;
}

/// No archive is installed, so each name is free.
pub struct NoArchive;

#[async_trait]
impl Names for NoArchive {
    async fn look_up(&self, _order: &ObjectMeta) -> Result<NameLookup, UnknownResult> {
        Ok(NameLookup::Free)
    }
}

impl Payment {
    /// The payment with this outcome and balance.
    ///
    /// # Errors
    /// [`UnknownResult`] if the outcome cannot be that of a charge, or if this version does not know it.
    fn new(outcome: Outcome, balance: Option<Money>) -> Result<Self, UnknownResult> {
        match (outcome, balance) {
            (Outcome::Paid, Some(balance)) => Ok(Payment::Charged { balance }),
            (Outcome::Paid, None) => Err(UnknownResult("billing's reply has no balance".to_owned())),
            (
                Outcome::Refused(
                    refusal @ (Refusal::InsufficientFunds
                    | Refusal::AccountNotFound
                    | Refusal::Cancelled
                    | Refusal::AlreadyExists),
                ),
                balance,
            ) => Ok(Payment::Refused { refusal, balance }),
            (Outcome::Refused(Refusal::DeadlineExceeded | Refusal::Refunded | Refusal::InvalidOrder) | Outcome::Undecided, _) => {
                Err(UnknownResult("billing's reply has an outcome that no charge can have".to_owned()))
            }
            (Outcome::Unknown, _) => {
                Err(UnknownResult("billing's reply has an outcome that this version of the operator does not know".to_owned()))
            }
        }
    }
}

/// Checks that a reply of billing is about this purchase. Otherwise the reply does not count.
fn check_matches(purchase: &Purchase, key: &str, login: &Login, amount: Money) -> Result<(), UnknownResult> {
    if key == purchase.key && *login == purchase.login && amount == purchase.amount {
        return Ok(());
    }
    Err(UnknownResult("billing's reply is about another charge".to_owned()))
}
