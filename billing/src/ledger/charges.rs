//! Operations on charges that were requested before: look up, close and refund.

use orders_crds::Money;
use sqlx::{Any, Executor, Row, any::AnyRow};

use super::{
    Kind, Ledger, Movement, Outcome, Recorded, balance_of, find, insert, move_balance,
    outbox::{self, Recipient},
};
use crate::error::LedgerError;

/// The current state of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeState {
    /// The customer.
    pub login: String,
    /// The requested amount.
    pub amount: Money,
    /// The outcome of the charge.
    pub outcome: Outcome,
    /// The balance right after the charge, or at the time of the refusal. `None` if there is no
    /// account.
    pub balance: Option<Money>,
    /// The sum of the refunds of the charge.
    pub refunded: Money,
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

impl Ledger {
    /// Returns the charge with this key, or `None` if the ledger has no such charge.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn charge(&self, key: &str) -> Result<Option<ChargeState>, LedgerError> {
        Ok(charge_state(&self.database.pool, key).await?)
    }

    /// Closes a charge that has not been made, so that it can no longer be made. A charge that
    /// already has an outcome stays unchanged, and the result contains that outcome.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key belongs to another charge, or
    /// [`LedgerError::Database`].
    pub async fn close(&self, key: &str, login: &str, amount: Money) -> Result<Recorded, LedgerError> {
        self.close_and(key, login, amount, Recipient::Nobody).await
    }

    /// Does the same as [`Ledger::close`], and adds the outcome to the outbox if it has a recipient.
    pub(super) async fn close_and(
        &self,
        key: &str,
        login: &str,
        amount: Money,
        recipient: Recipient<'_>,
    ) -> Result<Recorded, LedgerError> {
        let charge = Movement { kind: Kind::Charge, key, login, amount, charge_key: None };
        loop {
            let mut transaction = self.database.begin_write().await?;
            let recorded = match find(&mut transaction, &charge).await? {
                Some(first) => first,
                None => {
                    let balance = balance_of(&mut *transaction, login).await?;
                    if !insert(&mut transaction, &charge, Outcome::Closed, balance).await? {
                        // A concurrent request recorded this key first: roll back, and read what
                        // that request recorded.
                        transaction.rollback().await?;
                        continue;
                    }
                    Recorded { outcome: Outcome::Closed, balance, repeated: false }
                }
            };
            outbox::note(&mut transaction, &charge, recipient).await?;
            transaction.commit().await?;
            return Ok(recorded);
        }
    }

    /// Refunds a charge, once for each key of a refund.
    ///
    /// # Errors
    /// [`LedgerError::ChargeNotFound`], [`LedgerError::NotCharged`],
    /// [`LedgerError::RefundTooLarge`], [`LedgerError::KeyReused`], [`LedgerError::BalanceLimit`]
    /// or [`LedgerError::Database`]. After a database error, it is unknown whether money moved.
    /// After any other error, no money moved.
    pub async fn refund(&self, refund: &Refund<'_>) -> Result<Recorded, LedgerError> {
        self.refund_and(refund, Recipient::Nobody).await
    }

    /// Does the same as [`Ledger::refund`], and adds the outcome to the outbox if it has a recipient.
    pub(super) async fn refund_and(&self, refund: &Refund<'_>, recipient: Recipient<'_>) -> Result<Recorded, LedgerError> {
        let movement = Movement {
            kind: Kind::Refund,
            key: refund.key,
            login: refund.login,
            amount: refund.amount,
            charge_key: Some(refund.charge_key),
        };
        loop {
            let mut transaction = self.database.begin_write().await?;
            if let Some(first) = find(&mut transaction, &movement).await? {
                outbox::note(&mut transaction, &movement, recipient).await?;
                transaction.commit().await?;
                return Ok(first);
            }
            let charge = charge_state(&mut *transaction, refund.charge_key).await?;
            let charge = charge.filter(|charge| charge.login == refund.login).ok_or(LedgerError::ChargeNotFound)?;
            if charge.outcome != Outcome::Done {
                return Err(LedgerError::NotCharged);
            }
            // This update locks the account, so that refunds of one charge are made one after the
            // other.
            let (outcome, balance) = move_balance(&mut transaction, &movement).await?;
            if outcome != Outcome::Done {
                return Err(LedgerError::BalanceLimit);
            }
            // Another request may have recorded the same key while this request waited for the
            // lock. In this case, this request is a repeat.
            if find(&mut transaction, &movement).await?.is_some() {
                transaction.rollback().await?;
                continue;
            }
            let refunded =
                charge_state(&mut *transaction, refund.charge_key).await?.map_or(Money::ZERO, |charge| charge.refunded);
            if refunded.minor() + refund.amount.minor() > charge.amount.minor() {
                return Err(LedgerError::RefundTooLarge);
            }
            if insert(&mut transaction, &movement, outcome, balance).await? {
                outbox::note(&mut transaction, &movement, recipient).await?;
                transaction.commit().await?;
                return Ok(Recorded { outcome, balance, repeated: false });
            }
            transaction.rollback().await?;
        }
    }
}

async fn charge_state(database: impl Executor<'_, Database = Any>, key: &str) -> Result<Option<ChargeState>, sqlx::Error> {
    let row: Option<AnyRow> = sqlx::query(
        "SELECT login, amount, outcome, balance, (
             SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM transactions
             WHERE charge_key = $1 AND kind = 'refund' AND outcome = 'done')
         FROM transactions WHERE kind = 'charge' AND key = $1",
    )
    .bind(key)
    .fetch_optional(database)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ChargeState {
        login: row.try_get(0)?,
        amount: Money::from_minor(row.try_get(1)?),
        outcome: Outcome::read(&row.try_get::<String, _>(2)?)?,
        balance: row.try_get::<Option<i64>, _>(3)?.map(Money::from_minor),
        refunded: Money::from_minor(row.try_get(4)?),
    }))
}
