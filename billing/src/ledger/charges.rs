//! What can become of a charge after it was asked for: looked up, closed, given back.

use orders_crds::Money;
use sqlx::{Row, any::AnyRow};

use super::{Kind, Ledger, Movement, Outcome, Recorded, find, insert, move_balance};
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
    /// How much of it was given back.
    pub refunded: Money,
}

/// A request to give back a charge, in part or whole.
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
        let row: Option<AnyRow> = sqlx::query(
            "SELECT login, amount, outcome, balance, (
                 SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM transactions
                 WHERE charge_key = $1 AND kind = 'refund' AND outcome = 'done')
             FROM transactions WHERE kind = 'charge' AND key = $1",
        )
        .bind(key)
        .fetch_optional(&self.database.pool)
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

    /// Closes a charge that has not landed: from now on it cannot. One that was
    /// decided already stays as it was, which the result tells.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key was another charge's, or the database's.
    pub async fn close(&self, key: &str, login: &str, amount: Money) -> Result<Recorded, LedgerError> {
        let charge = Movement { kind: Kind::Charge, key, login, amount, charge_key: None };
        loop {
            let mut transaction = self.database.begin_write().await?;
            if let Some(first) = find(&mut transaction, &charge).await? {
                return Ok(first);
            }
            let balance: Option<i64> = sqlx::query_scalar("SELECT balance FROM accounts WHERE login = $1")
                .bind(login)
                .fetch_optional(&mut *transaction)
                .await?;
            let balance = balance.map(Money::from_minor);
            if insert(&mut transaction, &charge, Outcome::Closed, balance).await? {
                transaction.commit().await?;
                return Ok(Recorded { outcome: Outcome::Closed, balance, repeated: false });
            }
            transaction.rollback().await?;
        }
    }

    /// Gives back a charge, once for the refund's key.
    ///
    /// # Errors
    /// [`LedgerError::ChargeNotFound`], [`LedgerError::NotCharged`],
    /// [`LedgerError::RefundTooLarge`], [`LedgerError::KeyReused`],
    /// [`LedgerError::BalanceLimit`], or the database's. Nothing moved then.
    pub async fn refund(&self, refund: &Refund<'_>) -> Result<Recorded, LedgerError> {
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
                return Ok(first);
            }
            let charge: Option<AnyRow> =
                sqlx::query("SELECT login, amount, outcome FROM transactions WHERE kind = 'charge' AND key = $1")
                    .bind(refund.charge_key)
                    .fetch_optional(&mut *transaction)
                    .await?;
            let charge = charge.ok_or(LedgerError::ChargeNotFound)?;
            let (login, charged): (String, i64) = (charge.try_get(0)?, charge.try_get(1)?);
            if login != refund.login {
                return Err(LedgerError::ChargeNotFound);
            }
            if Outcome::read(&charge.try_get::<String, _>(2)?)? != Outcome::Done {
                return Err(LedgerError::NotCharged);
            }
            // Locks the account, so that refunds of one charge come one after the other.
            let (outcome, balance) = move_balance(&mut transaction, &movement).await?;
            if outcome != Outcome::Done {
                return Err(LedgerError::BalanceLimit);
            }
            let refunded: i64 = sqlx::query_scalar(
                "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM transactions
                 WHERE charge_key = $1 AND kind = 'refund' AND outcome = 'done'",
            )
            .bind(refund.charge_key)
            .fetch_one(&mut *transaction)
            .await?;
            // The same key may have come in while this one waited for the lock: that is a repeat.
            if let Some(first) = find(&mut transaction, &movement).await? {
                transaction.rollback().await?;
                return Ok(first);
            }
            if refunded + refund.amount.minor() > charged {
                return Err(LedgerError::RefundTooLarge);
            }
            if insert(&mut transaction, &movement, outcome, balance).await? {
                transaction.commit().await?;
                return Ok(Recorded { outcome, balance, repeated: false });
            }
            transaction.rollback().await?;
        }
    }
}
