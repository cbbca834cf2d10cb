//! The ledger: every movement of money, once for its key.
//!
//! Double-entry: a done transaction has two postings that sum to zero, the
//! customer's account against `cash` (refill) or `revenue` (charge). Nothing is
//! ever updated or deleted but the kept balance, which changes in the same
//! database transaction.

mod charges;
mod export;
mod group_commit;
mod outbox;

pub use charges::{ChargeState, Refund};
use group_commit::{BatchedMovements, batched_movements};
use outbox::Recipient;
pub use outbox::OutboxEntry;

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::database::{self, Database, Migrations};
use sqlx::{Any, Executor, Row, Transaction, any::AnyRow};
use strum::{EnumString, IntoStaticStr};

use crate::error::LedgerError;

/// The schema of the ledger's database.
pub const MIGRATIONS: Migrations =
    Migrations { sqlite: &sqlx::migrate!("migrations/sqlite"), postgres: &sqlx::migrate!("migrations/postgres") };

/// What a movement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// The customer pays in: `cash` to the customer's account.
    Refill,
    /// An order is charged: the customer's account to `revenue`.
    Charge,
    /// A charge is refunded: `revenue` to the customer's account.
    Refund,
}

/// The outcome of a movement, as it is stored: final for its key. What the other services know of it is
/// [`Outcome::of_charge`].
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
    /// What for.
    pub kind: Kind,
    /// What makes a repeat have its first effect only; unique per kind.
    pub key: &'a str,
    /// The customer.
    pub login: &'a str,
    /// How much; greater than zero.
    pub amount: Money,
    /// Of a refund: the key of the charge.
    pub charge_key: Option<&'a str>,
}

/// What the ledger holds about a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What became of it.
    pub outcome: Outcome,
    /// The balance right after it, or at the refusal; `None` without an account.
    pub balance: Option<Money>,
    /// Whether it was recorded before this call.
    pub repeated: bool,
}

/// An account that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its balance now.
    pub balance: Money,
    /// Whether this key opened it.
    pub by_key: bool,
}

/// The ledger in its database.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Database,
    /// On PostgreSQL.
    batched: Option<BatchedMovements>,
}

impl Ledger {
    /// The ledger in this database, whose schema is [`MIGRATIONS`]. Within a Tokio runtime.
    pub fn new(database: Database) -> Self {
        let batched = (database.kind == database::Kind::Postgres).then(|| batched_movements(database.clone()));
        Ledger { database, batched }
    }

    /// Opens an account with a balance of zero. With the key that opened it, it
    /// is no error that it is there; the result says whether it was.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyRegistered`], or the database's.
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

    /// Sees to it that there is an account, opened with a balance of zero if there
    /// was none. Repeating it changes nothing; the balance is the present one.
    ///
    /// # Errors
    /// The database's.
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

    /// The balance of an account.
    ///
    /// # Errors
    /// [`LedgerError::AccountNotFound`], or the database's.
    pub async fn balance(&self, login: &str) -> Result<Money, LedgerError> {
        balance_of(&self.database.pool, login).await?.ok_or(LedgerError::AccountNotFound)
    }

    /// Moves money, or records why not; a repeat gets what was recorded first.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key was another request's, or the
    /// database's: then the same key has to be asked again to learn the outcome.
    pub async fn record(&self, movement: &Movement<'_>) -> Result<Recorded, LedgerError> {
        if movement.charge_key.is_none()
            && let Some(batched) = &self.batched
            && let Some(balance) = batched.ask(movement.into()).await?
        {
            return Ok(Recorded { outcome: Outcome::Done, balance: Some(balance), repeated: false });
        }
        self.record_and(movement, Recipient::Nobody).await
    }

    /// The same, and adds the outcome to the outbox if it has a recipient.
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
            // Another request with this key came in between: undo, and read what it recorded.
            transaction.rollback().await?;
        }
    }
}

/// What is recorded under the movement's key already.
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

/// Changes the kept balance if the movement is allowed.
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
            // The balance changed between the two statements: the refusal would not be true any more.
            _ => continue,
        };
        return Ok((outcome, Some(balance)));
    }
}

async fn balance_of(database: impl Executor<'_, Database = Any>, login: &str) -> Result<Option<Money>, sqlx::Error> {
    let balance = sqlx::query_scalar("SELECT balance FROM accounts WHERE login = $1").bind(login);
    Ok(balance.fetch_optional(database).await?.map(Money::from_minor))
}

/// Writes the transaction and its postings; false if its key is taken by now.
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
    /// What the customer's balance changes by, in minor units.
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

    /// As it is stored.
    fn as_str(self) -> &'static str {
        self.into()
    }

    /// The account that the customer's is posted against.
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

    /// As it is stored.
    fn as_str(self) -> &'static str {
        self.into()
    }

    /// The outcome of a charge as the other services know it; `None` if it is none of a charge.
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
