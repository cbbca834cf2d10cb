//! The transactional outbox: the outcomes that billing has yet to publish. Billing adds an outcome
//! to the outbox in the database transaction that records the outcome.

use orders_crds::Money;
use sqlx::{Any, Row, Transaction, any::AnyRow};

use super::{
    database::Ledger,
    movement::{Kind, Movement, Outcome, RecordedMovement, Refund},
};
use crate::error::LedgerError;

/// The recipient of a published outcome.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recipient<'a> {
    /// No recipient: the caller gets the outcome in the response.
    Nobody,
    /// The operator, and the customer at this e-mail address.
    Customer(&'a str),
    /// The operator, which then requests a notification of the customer.
    Operator,
}

/// An outcome to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The entry's ID. It gives the entry's position in the outbox.
    pub id: i64,
    /// The kind of the movement: a charge or a refund.
    pub kind: Kind,
    /// The customer's e-mail address; empty for a refund.
    pub email: String,
    /// The charge's key.
    pub key: String,
    /// The customer.
    pub login: String,
    /// The requested amount.
    pub amount: Money,
    /// The outcome of the request.
    pub outcome: Outcome,
    /// The balance right after the movement, or at the time of the refusal. `None` if there is no
    /// account.
    pub balance: Option<Money>,
}

impl Ledger {
    /// Moves money as [`Ledger::record`] does, and adds the outcome to the outbox in the same
    /// database transaction. A repeated request adds the outcome again.
    ///
    /// # Errors
    /// The same as those of [`Ledger::record`].
    pub async fn record_with_outbox(&self, movement: &Movement<'_>, email: &str) -> Result<RecordedMovement, LedgerError> {
        self.record_in_transaction(movement, Recipient::Customer(email)).await
    }

    /// Closes a charge as [`Ledger::close`] does, and adds the outcome to the outbox.
    ///
    /// # Errors
    /// The same as those of [`Ledger::close`].
    pub async fn close_with_outbox(
        &self,
        key: &str,
        login: &str,
        amount: Money,
        email: &str,
    ) -> Result<RecordedMovement, LedgerError> {
        self.close_in_transaction(key, login, amount, Recipient::Customer(email)).await
    }

    /// Refunds a charge as [`Ledger::refund`] does, and adds the outcome to the outbox.
    ///
    /// # Errors
    /// The same as those of [`Ledger::refund`].
    pub async fn refund_with_outbox(&self, refund: &Refund<'_>) -> Result<RecordedMovement, LedgerError> {
        self.refund_in_transaction(refund, Recipient::Operator).await
    }

    /// Returns at most `limit` entries of the outbox, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn outbox(&self, limit: i64) -> Result<Vec<OutboxEntry>, LedgerError> {
        let rows: Vec<AnyRow> = sqlx::query(
            "SELECT o.id, o.email, COALESCE(t.charge_key, t.key), t.login, t.amount, t.outcome, t.balance, t.kind
             FROM outbox o JOIN transactions t ON t.id = o.transaction_id ORDER BY o.id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.database.pool)
        .await?;
        let entry = |row: AnyRow| -> Result<OutboxEntry, sqlx::Error> {
            Ok(OutboxEntry {
                id: row.try_get(0)?,
                email: row.try_get(1)?,
                key: row.try_get(2)?,
                login: row.try_get(3)?,
                amount: Money::from_minor(row.try_get(4)?),
                outcome: Outcome::parse(&row.try_get::<String, _>(5)?)?,
                balance: row.try_get::<Option<i64>, _>(6)?.map(Money::from_minor),
                kind: Kind::parse(&row.try_get::<String, _>(7)?)?,
            })
        };
        Ok(rows.into_iter().map(entry).collect::<Result<_, _>>()?)
    }

    /// Removes a published entry from the outbox.
    ///
    /// # Errors
    /// [`LedgerError::Database`]. In this case, the outcome is published again.
    pub async fn remove_from_outbox(&self, id: i64) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(&self.database.pool).await?;
        Ok(())
    }
}

/// Adds the outcome that is recorded under the movement's key to the outbox, if the outcome has a
/// recipient.
pub(super) async fn add(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
    recipient: Recipient<'_>,
) -> Result<(), sqlx::Error> {
    let email = match recipient {
        Recipient::Nobody => return Ok(()),
        Recipient::Customer(email) => email,
        Recipient::Operator => "",
    };
    sqlx::query("INSERT INTO outbox (transaction_id, email) SELECT id, $3 FROM transactions WHERE kind = $1 AND key = $2")
        .bind(movement.kind.as_str())
        .bind(movement.key)
        .bind(email)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
