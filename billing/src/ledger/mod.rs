//! The ledger records every movement of money. It makes a movement once for each idempotency key.
//!
//! The ledger uses double-entry bookkeeping. A transaction that is done has two postings that sum
//! to zero: one to the customer's account, and one to `cash` (refill) or `revenue` (charge,
//! refund). The only value that is ever updated is the stored balance of an account, which changes
//! in the same database transaction. Transactions and postings are never deleted.

mod charges;
mod export;
mod group_commit;
mod outbox;

pub use charges::{ChargeState, Refund};
use group_commit::{BatchedMovements, batched_movements};
pub use outbox::OutboxEntry;
use outbox::Recipient;

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::database::{self, Database, Migrations};
use sqlx::{Any, Executor, Row, Transaction, any::AnyRow};
use strum::{EnumString, IntoStaticStr};

use crate::error::LedgerError;

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
/// key. [`Outcome::of_charge`] returns the outcome in the form that the other services use.
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
pub struct Recorded {
    /// The outcome of the movement.
    pub outcome: Outcome,
    /// The balance right after the movement, or at the time of the refusal. `None` if there is no
    /// account.
    pub balance: Option<Money>,
    /// Whether the movement was recorded before this call.
    pub repeated: bool,
}

/// An existing account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The current balance.
    pub balance: Money,
    /// Whether the account was opened with this key.
    pub by_key: bool,
}

/// The ledger and its database.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Database,
    /// The batched movements; only on PostgreSQL.
    batched: Option<BatchedMovements>,
}

impl Ledger {
    /// Creates a ledger on this database, whose schema is [`MIGRATIONS`]. The call needs a Tokio
    /// runtime.
    pub fn new(database: Database) -> Self {
        let batched = (database.kind == database::Kind::Postgres).then(|| batched_movements(database.clone()));
        Ledger { database, batched }
    }

    /// Opens an account with a balance of zero. If the account already exists, the call succeeds
    /// only with the key that opened the account. Returns whether the account already existed.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyRegistered`] or [`LedgerError::Database`].
    pub async fn register(&self, login: &str, key: Option<&str>) -> Result<bool, LedgerError> {
        let done =
            sqlx::query("INSERT INTO accounts (login, balance, register_key) VALUES ($1, 0, $2) ON CONFLICT (login) DO NOTHING")
                .bind(login)
                .bind(key)
                .execute(&self.database.pool)
                .await?;
        if done.rows_affected() == 1 {
            return Ok(false);
        }
        let opened_with: Option<String> = sqlx::query_scalar("SELECT register_key FROM accounts WHERE login = $1")
            .bind(login)
            .fetch_one(&self.database.pool)
            .await?;
        if key.is_some() && opened_with.as_deref() == key { Ok(true) } else { Err(LedgerError::AlreadyRegistered) }
    }

    /// Ensures that the account exists: opens it with a balance of zero if it does not exist. A
    /// repeated call changes nothing and returns the current balance.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn open(&self, login: &str, key: &str) -> Result<Opened, LedgerError> {
        loop {
            let account: Option<(i64, Option<String>)> =
                sqlx::query_as("SELECT balance, register_key FROM accounts WHERE login = $1")
                    .bind(login)
                    .fetch_optional(&self.database.pool)
                    .await?;
            if let Some((balance, opened_with)) = account {
                return Ok(Opened { balance: Money::from_minor(balance), by_key: opened_with.as_deref() == Some(key) });
            }
            match self.register(login, Some(key)).await {
                Ok(_) | Err(LedgerError::AlreadyRegistered) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the balance of an account.
    ///
    /// # Errors
    /// [`LedgerError::AccountNotFound`] or [`LedgerError::Database`].
    pub async fn balance(&self, login: &str) -> Result<Money, LedgerError> {
        balance_of(&self.database.pool, login).await?.ok_or(LedgerError::AccountNotFound)
    }

    /// Moves money, or records the reason why the ledger refuses the movement. A repeated request
    /// returns the outcome that was recorded first.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key belongs to another request, or
    /// [`LedgerError::Database`]. After a database error, the outcome is unknown: repeat the
    /// request with the same key to learn it.
    pub async fn record(&self, movement: &Movement<'_>) -> Result<Recorded, LedgerError> {
        if movement.charge_key.is_none()
            && let Some(batched) = &self.batched
            && let Some(balance) = batched.ask(movement.into()).await?
        {
            return Ok(Recorded { outcome: Outcome::Done, balance: Some(balance), repeated: false });
        }
        self.record_and(movement, Recipient::Nobody).await
    }

    /// Records a movement in a transaction of its own, and adds the outcome to the outbox if it has
    /// a recipient.
    async fn record_and(&self, movement: &Movement<'_>, recipient: Recipient<'_>) -> Result<Recorded, LedgerError> {
        loop {
            let mut transaction = self.database.begin_write().await?;
            if let Some(first) = find(&mut transaction, movement).await? {
                outbox::note(&mut transaction, movement, recipient).await?;
                transaction.commit().await?;
                return Ok(first);
            }
            let (outcome, balance) = move_balance(&mut transaction, movement).await?;
            if insert(&mut transaction, movement, outcome, balance).await? {
                outbox::note(&mut transaction, movement, recipient).await?;
                transaction.commit().await?;
                return Ok(Recorded { outcome, balance, repeated: false });
            }
            // A concurrent request recorded this key first: roll back, and read what that request
            // recorded.
            transaction.rollback().await?;
        }
    }
}

/// Returns the record that already exists under the movement's key.
async fn find(transaction: &mut Transaction<'_, Any>, movement: &Movement<'_>) -> Result<Option<Recorded>, LedgerError> {
    let row: Option<AnyRow> =
        sqlx::query("SELECT login, amount, outcome, balance, charge_key FROM transactions WHERE kind = $1 AND key = $2")
            .bind(movement.kind.as_str())
            .bind(movement.key)
            .fetch_optional(&mut **transaction)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let (login, amount): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let charge_key: Option<String> = row.try_get(4)?;
    if login != movement.login || amount != movement.amount.minor() || charge_key.as_deref() != movement.charge_key {
        return Err(LedgerError::KeyReused);
    }
    let outcome = Outcome::read(&row.try_get::<String, _>(2)?)?;
    let balance: Option<i64> = row.try_get(3)?;
    Ok(Some(Recorded { outcome, balance: balance.map(Money::from_minor), repeated: true }))
}

/// Changes the stored balance if the movement is allowed.
async fn move_balance(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
) -> Result<(Outcome, Option<Money>), sqlx::Error> {
    let change = movement.change();
    loop {
        let moved: Option<i64> = sqlx::query_scalar(
            "UPDATE accounts SET balance = balance + $2
             WHERE login = $1 AND balance + $2 BETWEEN 0 AND $3 RETURNING balance",
        )
        .bind(movement.login)
        .bind(change)
        .bind(Money::MAX.minor())
        .fetch_optional(&mut **transaction)
        .await?;
        if let Some(balance) = moved {
            return Ok((Outcome::Done, Some(Money::from_minor(balance))));
        }
        let Some(balance) = balance_of(&mut **transaction, movement.login).await? else {
            return Ok((Outcome::AccountNotFound, None));
        };
        let outcome = match balance.minor() + change {
            ..0 => Outcome::InsufficientFunds,
            after if after > Money::MAX.minor() => Outcome::BalanceLimit,
            // The balance changed between the two statements, so the refusal would no longer be
            // correct.
            _ => continue,
        };
        return Ok((outcome, Some(balance)));
    }
}

async fn balance_of(database: impl Executor<'_, Database = Any>, login: &str) -> Result<Option<Money>, sqlx::Error> {
    let balance = sqlx::query_scalar("SELECT balance FROM accounts WHERE login = $1").bind(login);
    Ok(balance.fetch_optional(database).await?.map(Money::from_minor))
}

/// Inserts the transaction and its postings. Returns `false` if a transaction with the same key
/// exists by now.
async fn insert(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
    outcome: Outcome,
    balance: Option<Money>,
) -> Result<bool, sqlx::Error> {
    let id: Option<i64> = sqlx::query_scalar(
        "INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at, charge_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (kind, key) DO NOTHING RETURNING id",
    )
    .bind(movement.kind.as_str())
    .bind(movement.key)
    .bind(movement.login)
    .bind(movement.amount.minor())
    .bind(outcome.as_str())
    .bind(balance.map(Money::minor))
    .bind(Timestamp::now().as_microsecond())
    .bind(movement.charge_key)
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(id) = id else { return Ok(false) };
    if outcome == Outcome::Done {
        sqlx::query("INSERT INTO postings (transaction_id, account, amount) VALUES ($1, $2, $3), ($1, $4, $5)")
            .bind(id)
            .bind(format!("customer:{}", movement.login))
            .bind(movement.change())
            .bind(movement.kind.against())
            .bind(-movement.change())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(true)
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
    fn read(text: &str) -> Result<Kind, sqlx::Error> {
        text.parse().map_err(|_| unknown("transactions.kind", text))
    }

    /// Returns the name that the database stores.
    fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the account of the posting that balances the customer's posting.
    const fn against(self) -> &'static str {
        match self {
            Kind::Refill => "cash",
            Kind::Charge | Kind::Refund => "revenue",
        }
    }
}

impl Outcome {
    fn read(text: &str) -> Result<Outcome, sqlx::Error> {
        text.parse().map_err(|_| unknown("transactions.outcome", text))
    }

    /// Returns the name that the database stores.
    fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the outcome of a charge in the form that the other services use. Returns `None` if a
    /// charge cannot have this outcome.
    pub const fn of_charge(self) -> Option<orders_crds::Outcome> {
        use orders_crds::{Outcome as Of, Refusal};
        match self {
            Outcome::Done => Some(Of::Paid),
            Outcome::InsufficientFunds => Some(Of::Refused(Refusal::InsufficientFunds)),
            Outcome::AccountNotFound => Some(Of::Refused(Refusal::AccountNotFound)),
            Outcome::Closed => Some(Of::Refused(Refusal::Cancelled)),
            Outcome::BalanceLimit => None,
        }
    }
}

fn unknown(column: &str, text: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds {text:?}, which this version does not know").into())
}
