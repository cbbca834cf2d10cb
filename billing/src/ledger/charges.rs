//! Charges after they were requested: looked up, closed, refunded.

use orders_crds::Money;
use sqlx::{Any, Executor, Row, any::AnyRow};

use super::{
    Kind, Ledger, Movement, Outcome, Recorded, balance_of, find, insert, move_balance,
    outbox::{self, Recipient},
};
use crate::error::LedgerError;

/// A charge as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeState {
    /// The customer.
    pub login: String,
    /// How much was asked for.
    pub amount: Money,
    /// What became of it.
    pub outcome: Outcome,
    /// The balance right after it, or at the refusal; `None` without an account.
    pub balance: Option<Money>,
    /// How much of it was refunded.
    pub refunded: Money,
}

/// A request to refund a charge, in part or whole.
#[derive(Clone, Debug)]
pub struct Refund<'a> {
    /// What makes a repeat have its first effect only.
    pub key: &'a str,
    /// The key of the charge.
    pub charge_key: &'a str,
    /// The customer who was charged.
    pub login: &'a str,
    /// How much; greater than zero, together with earlier refunds at most the charge.
    pub amount: Money,
}

impl Ledger {
    /// What is known of the charge with this key; `None` if nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn charge(&self, key: &str) -> Result<Option<ChargeState>, LedgerError> {
        Ok(charge_state(&self.database.pool, key).await?)
    }

    /// Closes a charge that was not made: from now on it cannot be made. A charge that was decided
    /// already stays as it was; the result has its outcome.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key was another charge's, or the database's.
    pub async fn close(&self, key: &str, login: &str, amount: Money) -> Result<Recorded, LedgerError> {
        self.close_and(key, login, amount, Recipient::Nobody).await
    }

    /// The same, and adds the outcome to the outbox if it has a recipient.
    pub(super) async fn close_and(&self, key: &str, login: &str, amount: Money, recipient: Recipient<'_>) -> Result<Recorded, LedgerError> {
        let charge = Movement { kind: Kind::Charge, key, login, amount, charge_key: None };
        loop {
            let mut transaction = self.database.begin_write().await?;
            let recorded = match find(&mut transaction, &charge).await? {
                Some(first) => first,
                None => {
                    let balance = balance_of(&mut *transaction, login).await?;
                    if !insert(&mut transaction, &charge, Outcome::Closed, balance).await? {
                        // Another request with this key came in between: undo, and read what it recorded.
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

    /// Refunds a charge, once for the refund's key.
    ///
    /// # Errors
    /// [`LedgerError::ChargeNotFound`], [`LedgerError::NotCharged`],
    /// [`LedgerError::RefundTooLarge`], [`LedgerError::KeyReused`],
    /// [`LedgerError::BalanceLimit`], or the database's. Nothing moved then.
    pub async fn refund(&self, refund: &Refund<'_>) -> Result<Recorded, LedgerError> {
        self.refund_and(refund, Recipient::Nobody).await
    }

    /// The same, and adds the outcome to the outbox if it has a recipient.
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
            // Locks the account, so that refunds of one charge come one after the other.
            let (outcome, balance) = move_balance(&mut transaction, &movement).await?;
            if outcome != Outcome::Done {
                return Err(LedgerError::BalanceLimit);
            }
            // The same key may have come in while this one waited for the lock: that is a repeat.
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
