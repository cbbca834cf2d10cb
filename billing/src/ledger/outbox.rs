//! Outcomes that still have to be told: written with the charge, read by whoever tells.

use orders_crds::Money;
use sqlx::{Any, Row, Transaction, any::AnyRow};

use super::{Kind, Ledger, Movement, Outcome, Recorded, Refund};
use crate::error::LedgerError;

/// Who is told an outcome.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tell<'a> {
    /// Whoever asked has it in the answer.
    Nobody,
    /// The operator, and the customer at this address.
    Customer(&'a str),
    /// The operator, who has the customer told.
    Operator,
}

/// An outcome to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Its place in the outbox.
    pub id: i64,
    /// Of a charge or of a refund.
    pub kind: Kind,
    /// Where the customer is to be told; empty of a refund.
    pub email: String,
    /// The charge's key.
    pub key: String,
    /// The customer.
    pub login: String,
    /// How much was asked for.
    pub amount: Money,
    /// What became of it.
    pub outcome: Outcome,
    /// The balance right after it, or at the refusal; `None` without an account.
    pub balance: Option<Money>,
}

impl Ledger {
    /// Moves money as [`Ledger::record`] does and notes, in the same database
    /// transaction, that the outcome is to be told; a repeat notes it again.
    ///
    /// # Errors
    /// As [`Ledger::record`].
    pub async fn record_to_tell(&self, movement: &Movement<'_>, email: &str) -> Result<Recorded, LedgerError> {
        self.record_and(movement, Tell::Customer(email)).await
    }

    /// Closes a charge as [`Ledger::close`] does, and notes likewise.
    ///
    /// # Errors
    /// As [`Ledger::close`].
    pub async fn close_to_tell(&self, key: &str, login: &str, amount: Money, email: &str) -> Result<Recorded, LedgerError> {
        self.close_and(key, login, amount, Tell::Customer(email)).await
    }

    /// Gives a charge back as [`Ledger::refund`] does, and notes likewise.
    ///
    /// # Errors
    /// As [`Ledger::refund`].
    pub async fn refund_to_tell(&self, refund: &Refund<'_>) -> Result<Recorded, LedgerError> {
        self.refund_and(refund, Tell::Operator).await
    }

    /// Up to `limit` outcomes that still have to be told, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn untold(&self, limit: i64) -> Result<Vec<Untold>, LedgerError> {
        let rows: Vec<AnyRow> = sqlx::query(
            "SELECT o.id, o.email, COALESCE(t.charge_key, t.key), t.login, t.amount, t.outcome, t.balance, t.kind
             FROM outbox o JOIN transactions t ON t.id = o.transaction_id ORDER BY o.id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.database.pool)
        .await?;
        let untold = |row: AnyRow| -> Result<Untold, sqlx::Error> {
            Ok(Untold {
                id: row.try_get(0)?,
                email: row.try_get(1)?,
                key: row.try_get(2)?,
                login: row.try_get(3)?,
                amount: Money::from_minor(row.try_get(4)?),
                outcome: Outcome::read(&row.try_get::<String, _>(5)?)?,
                balance: row.try_get::<Option<i64>, _>(6)?.map(Money::from_minor),
                kind: Kind::read(&row.try_get::<String, _>(7)?)?,
            })
        };
        Ok(rows.into_iter().map(untold).collect::<Result<_, _>>()?)
    }

    /// Notes that an outcome was told.
    ///
    /// # Errors
    /// The database's: then it is told again.
    pub async fn told(&self, id: i64) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(&self.database.pool).await?;
        Ok(())
    }
}

/// Notes that the outcome under the movement's key is to be told, if it is.
pub(super) async fn note(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
    tell: Tell<'_>,
) -> Result<(), sqlx::Error> {
    let email = match tell {
        Tell::Nobody => return Ok(()),
        Tell::Customer(email) => email,
        Tell::Operator => "",
    };
    sqlx::query("INSERT INTO outbox (transaction_id, email) SELECT id, $3 FROM transactions WHERE kind = $1 AND key = $2")
        .bind(movement.kind.as_str())
        .bind(movement.key)
        .bind(email)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
