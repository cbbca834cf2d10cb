//! The ledger records every movement of money. It makes a movement once for each idempotency key.
//!
//! The ledger uses double-entry bookkeeping. A transaction that is done has two postings that sum
//! to zero: one to the customer's account, and one to `cash` (refill) or `revenue` (charge,
//! refund). The only value that is ever updated is the stored balance of an account, which changes
//! in the same database transaction. Transactions and postings are never deleted.

mod accounts;
mod charge_state;
mod close;
mod export;
mod group_commit;
mod outbox;
mod record;
mod refund;

pub use accounts::OpenedAccount;
pub use charge_state::ChargeState;
use group_commit::{MovementBatcher, start_batcher};
pub use outbox::OutboxEntry;
pub use refund::Refund;

use orders_crds::Money;
use orders_service::database::{self, Database, Migrations};
use strum::{EnumString, IntoStaticStr};

/// The schema of the ledger's database.
pub const MIGRATIONS: Migrations =
    Migrations { sqlite: &sqlx::migrate!("migrations/sqlite"), postgres: &sqlx::migrate!("migrations/postgres") };

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

/// The ledger and its database.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Database,
    /// The group commit of common movements; only on PostgreSQL.
    batcher: Option<MovementBatcher>,
}

impl Ledger {
    /// Creates a ledger on this database, whose schema is [`MIGRATIONS`]. The call needs a Tokio
    /// runtime.
    pub fn new(database: Database) -> Self {
        let batcher = (database.kind == database::Kind::Postgres).then(|| start_batcher(database.clone()));
        Ledger { database, batcher }
    }
}

impl Movement<'_> {
    /// Returns the change of the customer's balance, in minor units.
    fn change(&self) -> i64 {
        match self.kind {
            Kind::Refill | Kind::Refund => self.amount.minor(),
            Kind::Charge => -self.amount.minor(),
        }
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Kind, sqlx::Error> {
        text.parse().map_err(|_| unknown_value("transactions.kind", text))
    }

    /// Returns the name that the database stores.
    fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the offsetting account: the account of the posting that balances the customer's posting.
    const fn offsetting_account(self) -> &'static str {
        match self {
            Kind::Refill => "cash",
            Kind::Charge | Kind::Refund => "revenue",
        }
    }
}

impl Outcome {
    fn parse(text: &str) -> Result<Outcome, sqlx::Error> {
        text.parse().map_err(|_| unknown_value("transactions.outcome", text))
    }

    /// Returns the name that the database stores.
    fn as_str(self) -> &'static str {
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
