//! A movement of money, and the ledger's record of it.

use orders_crds::Money;
use strum::{EnumString, IntoStaticStr};

/// The kind of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// The customer pays in: from `cash` to the customer's account.
    Refill,
    /// An order is charged: from the customer's account to `revenue`.
    Charge,
    /// A charge is refunded: from `revenue` to the customer's account.
    Refund,
}

/// The outcome of a movement, as the database stores it. The outcome is final for the movement's
/// key. [`Outcome::to_charge_outcome`] returns the outcome in the form that the other services use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// The money moved.
    Done,
    /// The balance was less than the amount.
    InsufficientFunds,
    /// There was no such account.
    AccountNotFound,
    /// The balance would have become larger than [`Money::MAX`].
    BalanceLimit,
    /// The charge was closed before it was made; no money moves under its key.
    Closed,
}

/// A request to move money.
#[derive(Clone, Debug)]
pub struct Movement<'a> {
    /// The kind of the movement.
    pub kind: Kind,
    /// The idempotency key: a repeated request with the same key has no further effect. The key is
    /// unique per kind.
    pub key: &'a str,
    /// The customer.
    pub login: &'a str,
    /// The amount; greater than zero.
    pub amount: Money,
    /// For a refund, the key of the charge.
    pub charge_key: Option<&'a str>,
}

/// A request to refund a charge, in part or in full.
#[derive(Clone, Debug)]
pub struct Refund<'a> {
    /// The idempotency key: a repeated request with the same key has no further effect.
    pub key: &'a str,
    /// The key of the charge.
    pub charge_key: &'a str,
    /// The customer who was charged.
    pub login: &'a str,
    /// The amount; greater than zero. Together with earlier refunds, it is at most the amount of
    /// the charge.
    pub amount: Money,
}

/// The ledger's record of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedMovement {
    /// The outcome of the movement.
    pub outcome: Outcome,
    /// The balance right after the movement, or at the time of the refusal. `None` if there is no
    /// account.
    pub balance: Option<Money>,
    /// Whether the movement was recorded before this call.
    pub repeated: bool,
}

impl Movement<'_> {
    /// Returns the change of the customer's balance, in minor units.
    pub(super) fn change(&self) -> i64 {
        match self.kind {
            Kind::Refill | Kind::Refund => self.amount.minor(),
            Kind::Charge => -self.amount.minor(),
        }
    }
}

impl Kind {
    pub(super) fn parse(text: &str) -> Result<Kind, sqlx::Error> {
        text.parse().map_err(|_| unknown_value("transactions.kind", text))
    }

    /// Returns the name that the database stores.
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the offsetting account: the account of the posting that balances the customer's posting.
    pub(super) const fn offsetting_account(self) -> &'static str {
        match self {
            Kind::Refill => "cash",
            Kind::Charge | Kind::Refund => "revenue",
        }
    }
}

impl Outcome {
    pub(super) fn parse(text: &str) -> Result<Outcome, sqlx::Error> {
        text.parse().map_err(|_| unknown_value("transactions.outcome", text))
    }

    /// Returns the name that the database stores.
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the outcome of a charge in the form that the other services use. Returns `None` if a
    /// charge cannot have this outcome.
    pub const fn to_charge_outcome(self) -> Option<orders_crds::Outcome> {
        use orders_crds::{Outcome as ChargeOutcome, Refusal};
        match self {
            Outcome::Done => Some(ChargeOutcome::Paid),
            Outcome::InsufficientFunds => Some(ChargeOutcome::Refused(Refusal::InsufficientFunds)),
            Outcome::AccountNotFound => Some(ChargeOutcome::Refused(Refusal::AccountNotFound)),
            Outcome::Closed => Some(ChargeOutcome::Refused(Refusal::Cancelled)),
            Outcome::BalanceLimit => None,
        }
    }
}

fn unknown_value(column: &str, text: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} contains {text:?}, which this version does not know").into())
}
