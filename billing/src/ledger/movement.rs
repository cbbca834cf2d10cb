//! A movement of money, and the ledger's record of it.

use orders_contracts::billing;
use orders_crds::Money;
use strum::{EnumString, IntoStaticStr};

/// The account of the money that customers paid in.
const CASH: &str = "cash";

/// The account of the charges that are neither captured nor voided.
const AUTHORIZED: &str = "authorized";

/// The account of the captured charges.
const REVENUE: &str = "revenue";

/// The kind of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// The customer pays in: from `cash` to the customer's account.
    Refill,
    /// An order is charged: from the customer's account to `authorized`, or to `revenue` if the
    /// charge is captured at once.
    Charge,
    /// An authorized charge is captured, which makes it final: from `authorized` to `revenue`.
    Capture,
    /// An authorized charge is voided: from `authorized` back to the customer's account.
    Void,
    /// A captured charge is refunded: from `revenue` to the customer's account.
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
    /// The balance would have become larger than the largest balance after this movement.
    BalanceLimit,
    /// The charge was closed before it was made; no money moves under its key.
    Closed,
    /// An earlier charge of the same reference was made, and is captured or voided.
    AlreadyExists,
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
    /// For a capture, a void or a refund, the key of the charge.
    pub charge_key: Option<&'a str>,
    /// For a charge that is captured or voided later, the order that it is authorized for. A charge
    /// without it is captured at once.
    pub authorization: Option<NewAuthorization<'a>>,
}

/// The order that a charge is authorized for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewAuthorization<'a> {
    /// The namespace and name of the order. Of all charges with one reference, only one is ever made.
    pub reference: &'a str,
    /// JSON that the caller needs to settle the charge. The ledger does not interpret it.
    pub metadata: &'a str,
}

impl<'a> NewAuthorization<'a> {
    /// Creates the authorization of a request, with its metadata as JSON. `None` if the charge is
    /// captured at once.
    pub fn new(requested: Option<&'a billing::NewAuthorization>, metadata: Option<&'a str>) -> Option<Self> {
        requested.zip(metadata).map(|(requested, metadata)| NewAuthorization { reference: &requested.reference, metadata })
    }
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
            Kind::Refill | Kind::Void | Kind::Refund => self.amount.minor(),
            Kind::Charge => -self.amount.minor(),
            Kind::Capture => 0,
        }
    }

    /// Returns the largest balance that the movement may leave. Limits bind refills: what was charged can
    /// always be given back.
    pub(super) const fn max_balance(&self) -> Money {
        match self.kind {
            Kind::Refill => Money::MAX,
            Kind::Charge | Kind::Capture | Kind::Void | Kind::Refund => Money::MAX_BALANCE,
        }
    }

    /// Returns the account that the money moves from, and the account that it moves to.
    pub(super) fn accounts(&self) -> (String, String) {
        let customer = format!("customer:{}", self.login);
        let (from, to) = match (self.kind, self.authorization) {
            (Kind::Refill, _) => (CASH, &*customer),
            (Kind::Charge, Some(_)) => (&*customer, AUTHORIZED),
            (Kind::Charge, None) => (&*customer, REVENUE),
            (Kind::Capture, _) => (AUTHORIZED, REVENUE),
            (Kind::Void, _) => (AUTHORIZED, &*customer),
            (Kind::Refund, _) => (REVENUE, &*customer),
        };
        (from.to_owned(), to.to_owned())
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
            Outcome::AlreadyExists => Some(ChargeOutcome::Refused(Refusal::AlreadyExists)),
            Outcome::BalanceLimit => None,
        }
    }
}

fn unknown_value(column: &str, text: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} contains {text:?}, which this version does not know").into())
}
