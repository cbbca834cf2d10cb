//! How the operator reaches billing and notify: one trait each, so that another
//! style of interaction is another implementation and not another controller.
//! [`interaction`](crate::interaction) chooses.

pub mod accounts;
pub mod archive;
pub mod billing;
pub mod broker;
pub mod notify;

use async_trait::async_trait;
use orders_crds::{Login, Money, OrderStatus, Outcome, Reason, RetryStep};

use crate::{late::LateAnswer, purchase::Purchase};

/// Billing's definite answer about a charge. A refusal is an answer, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payment {
    /// The account was charged, now or when this key was first seen.
    Charged {
        /// The balance right after.
        balance: Money,
    },
    /// The account was not and will not be charged for this key.
    Refused {
        /// [`Reason::InsufficientFunds`], [`Reason::AccountNotFound`] or [`Reason::Cancelled`].
        reason: Reason,
        /// The balance at the refusal, if there is an account.
        balance: Option<Money>,
    },
}

/// What became of a message so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The mail server accepted it.
    Sent,
    /// It is stored and being tried.
    Underway {
        /// Why the last attempt failed, if one did.
        last_error: Option<String>,
    },
    /// It was refused as it is; trying again would not help.
    Refused {
        /// Why.
        why: String,
    },
    /// It was tried often enough in vain; it is tried again on request.
    DeadLettered {
        /// Why the last attempt failed.
        why: String,
    },
}

/// What a customer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// What became of the order.
    pub outcome: Outcome,
    /// The balance right after the charge or at the refusal.
    pub balance: Option<Money>,
    /// How often the message was asked to be sent again after it had been given up.
    pub resends: i32,
}

impl News {
    /// What the status of an order is to be told.
    pub fn of(status: &OrderStatus) -> Self {
        News { outcome: status.outcome(), balance: status.balance, resends: status.resends.unwrap_or(0) }
    }
}

/// No definite answer: the effect may or may not have happened. Ask again with the same key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// The billing service, as the operator needs it.
#[async_trait]
pub trait Billing: Send + Sync {
    /// Charges a purchase, once for its key.
    ///
    /// # Errors
    /// [`NoAnswer`], after which the charge is unknown.
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, NoAnswer>;

    /// Closes the charge of a purchase, so that it cannot land any more, and says
    /// what became of it: one that was decided before stays as it is.
    ///
    /// # Errors
    /// [`NoAnswer`], after which the charge is unknown.
    async fn close(&self, purchase: &Purchase) -> Result<Payment, NoAnswer>;

    /// Gives the charge of a purchase back as a whole, once, and says the balance right after.
    ///
    /// # Errors
    /// [`NoAnswer`], after which the refund is unknown.
    async fn refund(&self, purchase: &Purchase) -> Result<Money, NoAnswer>;

    /// What was asked for in this step in vain may be answered after all; `None` where nothing is answered late.
    /// Whoever asks again takes the answer.
    fn late(&self, _step: RetryStep, _purchase: &Purchase) -> Option<LateAnswer> {
        None
    }
}

/// The notify service, as the operator needs it.
#[async_trait]
pub trait Notify: Send + Sync {
    /// Has the customer told what became of a purchase, once for the message's key,
    /// and says how that stands.
    ///
    /// # Errors
    /// [`NoAnswer`], after which it is unknown whether the message is stored.
    async fn notify(&self, purchase: &Purchase, news: &News) -> Result<Delivery, NoAnswer>;

    /// As [`Billing::late`], of a message that is sent or given up.
    fn late(&self, _purchase: &Purchase, _news: &News) -> Option<LateAnswer> {
        None
    }
}

/// An answer counts only if it speaks of this very purchase.
fn is_of(purchase: &Purchase, key: &str, login: &Login, amount: Money) -> Result<(), NoAnswer> {
    if key == purchase.key && *login == purchase.login && amount == purchase.amount {
        return Ok(());
    }
    Err(NoAnswer("billing's answer is about another charge".to_owned()))
}
