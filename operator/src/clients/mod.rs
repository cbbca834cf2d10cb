//! How the operator reaches billing and notify: one trait each, so that another
//! style of interaction is another implementation and not another controller.
//! [`interaction`](crate::interaction) chooses.

pub mod billing;
pub mod broker;
pub mod notify;

use async_trait::async_trait;
use orders_crds::{Money, Outcome, Reason};

use crate::purchase::Purchase;

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
}

/// The notify service, as the operator needs it.
#[async_trait]
pub trait Notify: Send + Sync {
    /// Has the customer told what became of a purchase, once for its key, and
    /// says how that stands. `balance` is that right after the charge or at the refusal.
    ///
    /// # Errors
    /// [`NoAnswer`], after which it is unknown whether the message is stored.
    async fn notify(&self, purchase: &Purchase, outcome: Outcome, balance: Option<Money>) -> Result<Delivery, NoAnswer>;
}
