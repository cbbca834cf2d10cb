//! Records movements, each once for its idempotency key.

use jiff::Timestamp;
use orders_crds::Money;
use sqlx::{Any, Row, Transaction, any::AnyRow};

use super::{
    accounts::select_balance,
    authorizations,
    database::Ledger,
    movement::{Movement, Outcome, RecordedMovement},
    outbox::{self, Recipient},
};
use crate::error::LedgerError;

impl Ledger {
    /// Moves money, or records the reason why the ledger refuses the movement. A repeated request
    /// returns the outcome that was recorded first.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key belongs to another request,
    /// [`LedgerError::ReferenceInUse`] if another charge of the same reference is still authorized, or
    /// [`LedgerError::Database`]. After a database error, the outcome is unknown: repeat the
    /// request with the same key to learn it.
    pub async fn record(&self, movement: &Movement<'_>) -> Result<RecordedMovement, LedgerError> {
        if movement.charge_key.is_none()
            && let Some(batcher) = &self.batcher
            && let Some(balance) = batcher.execute(movement.into()).await?
        {
            return Ok(RecordedMovement { outcome: Outcome::Done, balance: Some(balance), repeated: false });
        }
        self.record_in_transaction(movement, Recipient::Nobody).await
    }

    /// Records a movement in a transaction of its own, and adds the outcome to the outbox if it has
    /// a recipient.
    pub(super) async fn record_in_transaction(
        &self,
        movement: &Movement<'_>,
        recipient: Recipient<'_>,
    ) -> Result<RecordedMovement, LedgerError> {
        loop {
            let mut transaction = self.database.begin_write().await?;
            if let Some(first) = find_recorded(&mut transaction, movement).await? {
                outbox::add(&mut transaction, movement, recipient).await?;
                transaction.commit().await?;
                return Ok(first);
            }
            let (outcome, balance) = if authorizations::is_reference_used(&mut transaction, movement).await? {
                (Outcome::AlreadyExists, select_balance(&mut *transaction, movement.login).await?)
            } else {
                update_balance(&mut transaction, movement).await?
            };
            if insert_transaction(&mut transaction, movement, outcome, balance).await? {
                authorizations::insert(&mut transaction, movement, outcome).await?;
                outbox::add(&mut transaction, movement, recipient).await?;
                transaction.commit().await?;
                return Ok(RecordedMovement { outcome, balance, repeated: false });
            }
            // A concurrent request recorded this key or reference first: roll back, and read what that
            // request recorded.
            transaction.rollback().await?;
        }
    }
}

/// Returns the record that already exists under the movement's key.
pub(super) async fn find_recorded(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
) -> Result<Option<RecordedMovement>, LedgerError> {
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
    let outcome = Outcome::parse(&row.try_get::<String, _>(2)?)?;
    let balance: Option<i64> = row.try_get(3)?;
    Ok(Some(RecordedMovement { outcome, balance: balance.map(Money::from_minor), repeated: true }))
}

/// Changes the stored balance if the movement is allowed.
pub(super) async fn update_balance(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
) -> Result<(Outcome, Option<Money>), sqlx::Error> {
    let change = movement.change();
    loop {
        let updated: Option<i64> = sqlx::query_scalar(
            "UPDATE accounts SET balance = balance + $2
             WHERE login = $1 AND balance + $2 BETWEEN 0 AND $3 RETURNING balance",
        )
        .bind(movement.login)
        .bind(change)
        .bind(movement.max_balance().minor())
        .fetch_optional(&mut **transaction)
        .await?;
        if let Some(balance) = updated {
            return Ok((Outcome::Done, Some(Money::from_minor(balance))));
        }
        let Some(balance) = select_balance(&mut **transaction, movement.login).await? else {
            return Ok((Outcome::AccountNotFound, None));
        };
        let outcome = match balance.minor() + change {
            ..0 => Outcome::InsufficientFunds,
            after if after > movement.max_balance().minor() => Outcome::BalanceLimit,
            // The balance changed between the two statements, so the refusal would no longer be
            // correct.
            _ => continue,
        };
        return Ok((outcome, Some(balance)));
    }
}

/// Inserts the transaction and its postings. Returns `false` if a transaction with the same key or
/// reference exists by now.
pub(super) async fn insert_transaction(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
    outcome: Outcome,
    balance: Option<Money>,
) -> Result<bool, sqlx::Error> {
    let id: Option<i64> = sqlx::query_scalar(
        "INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at, charge_key, reference)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(movement.kind.as_str())
    .bind(movement.key)
    .bind(movement.login)
    .bind(movement.amount.minor())
    .bind(outcome.as_str())
    .bind(balance.map(Money::minor))
    .bind(Timestamp::now().as_microsecond())
    .bind(movement.charge_key)
    .bind(movement.authorization.filter(|_| outcome == Outcome::Done).map(|authorization| authorization.reference))
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(id) = id else { return Ok(false) };
    if outcome == Outcome::Done {
        let (from, to) = movement.accounts();
        sqlx::query("INSERT INTO postings (transaction_id, account, amount) VALUES ($1, $2, -$4), ($1, $3, $4)")
            .bind(id)
            .bind(from)
            .bind(to)
            .bind(movement.amount.minor())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(true)
}
