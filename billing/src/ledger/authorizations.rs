//! Authorized charges: the list of those that are neither captured nor voided, and their capture and
//! void.
//!
//! The database transaction that deletes the row of an authorization also records the capture or the
//! void. So each authorized charge is either captured or voided, once.

use jiff::Timestamp;
use orders_contracts::billing::{Authorization, ChargePhase};
use orders_crds::Money;
use orders_service::database::{Kind as DatabaseKind, json};
use sqlx::{Any, AnyConnection, Row, Transaction, any::AnyRow};

use super::{
    charge_state::select_charge,
    database::Ledger,
    movement::{Kind, Movement, Outcome},
    record::{find_recorded, insert_transaction, update_balance},
};
use crate::error::LedgerError;

/// A charge that was voided, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoidedCharge {
    /// The customer.
    pub login: String,
    /// The amount that the customer got back.
    pub amount: Money,
    /// The balance right after the void.
    pub balance: Money,
    /// Whether the charge was voided before this call.
    pub repeated: bool,
}

impl Ledger {
    /// Returns up to `limit` authorizations that were made before this time and whose IDs are greater
    /// than `after`, in the order of their IDs.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn authorizations(&self, after: i64, before: Timestamp, limit: i64) -> Result<Vec<Authorization>, LedgerError> {
        let rows: Vec<AnyRow> = sqlx::query(
            "SELECT a.transaction_id, a.charge_key, a.reference, a.metadata, a.created_at, t.login, t.amount, t.balance
             FROM authorizations a JOIN transactions t ON t.id = a.transaction_id
             WHERE a.transaction_id > $1 AND a.created_at < $2 ORDER BY a.transaction_id LIMIT $3",
        )
        .bind(after)
        .bind(before.as_microsecond())
        .bind(limit)
        .fetch_all(&self.database.pool)
        .await?;
        Ok(rows.iter().map(authorization).collect::<Result<_, _>>()?)
    }

    /// Captures the authorized charges with these keys. Any other key is left as it is: its charge
    /// was captured or voided before, or was refused. Returns how many charges were captured.
    ///
    /// # Errors
    /// [`LedgerError::Database`], after which it is unknown whether the charges are captured: repeat
    /// the call.
    pub async fn capture(&self, keys: &[&str]) -> Result<usize, LedgerError> {
        let mut transaction = match self.database.kind {
            DatabaseKind::Postgres => return Ok(capture_in_one_statement(&mut *self.database.pool.acquire().await?, keys).await?),
            DatabaseKind::Sqlite => self.database.begin_write().await?,
        };
        let captured = capture_in_statements(&mut transaction, keys).await?;
        transaction.commit().await?;
        Ok(captured)
    }

    /// Voids the authorized charge with this key: the customer gets the whole amount back. A
    /// repeated call returns the first result.
    ///
    /// # Errors
    /// [`LedgerError::ChargeNotFound`], [`LedgerError::NotAuthorized`] if the charge was captured,
    /// refused or closed, [`LedgerError::BalanceLimit`] or [`LedgerError::Database`].
    pub async fn void(&self, key: &str) -> Result<VoidedCharge, LedgerError> {
        loop {
            let mut transaction = self.database.begin_write().await?;
            let charge = select_charge(&mut *transaction, key).await?.ok_or(LedgerError::ChargeNotFound)?;
            let (login, amount) = (charge.login, charge.amount);
            let movement = Movement { kind: Kind::Void, key, login: &login, amount, charge_key: Some(key), authorization: None };
            if let Some(first) = find_recorded(&mut transaction, &movement).await? {
                return Ok(VoidedCharge { amount, balance: first.balance.unwrap_or_default(), repeated: true, login });
            }
            if charge.phase != Some(ChargePhase::Authorized) {
                return Err(LedgerError::NotAuthorized);
            }
            // This update locks the account before the authorization, as a refund does.
            let (outcome, balance) = update_balance(&mut transaction, &movement).await?;
            let delete = sqlx::query("DELETE FROM authorizations WHERE charge_key = $1").bind(key);
            if delete.execute(&mut *transaction).await?.rows_affected() == 0 {
                // A concurrent call captured or voided the charge first: roll back, and read what that
                // call recorded.
                transaction.rollback().await?;
                continue;
            }
            if outcome != Outcome::Done {
                // An account is never deleted, and a void raises the balance.
                return Err(LedgerError::BalanceLimit);
            }
            insert_transaction(&mut transaction, &movement, outcome, balance).await?;
            transaction.commit().await?;
            return Ok(VoidedCharge { amount, balance: balance.unwrap_or_default(), repeated: false, login });
        }
    }
}

fn authorization(row: &AnyRow) -> Result<Authorization, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column);
    Ok(Authorization {
        id: number("transaction_id")?,
        key: text("charge_key")?,
        reference: text("reference")?,
        metadata: serde_json::from_str(&text("metadata")?).map_err(|error| sqlx::Error::Decode(error.into()))?,
        created_at: number("created_at")?,
        login: text("login")?,
        amount: Money::from_minor(number("amount")?),
        balance: Money::from_minor(number("balance")?),
    })
}

/// Whether an earlier charge of the movement's reference was made, and is captured or voided.
///
/// # Errors
/// [`LedgerError::ReferenceInUse`] if that charge is still authorized, or [`LedgerError::Database`].
pub(super) async fn is_reference_used(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
) -> Result<bool, LedgerError> {
    let Some(new) = movement.authorization else { return Ok(false) };
    let (authorized, made): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM authorizations WHERE reference = $1),
             (SELECT COUNT(*) FROM transactions WHERE reference = $1)",
    )
    .bind(new.reference)
    .fetch_one(&mut **transaction)
    .await?;
    if authorized > 0 { Err(LedgerError::ReferenceInUse) } else { Ok(made > 0) }
}

/// Adds the authorization of a charge that was just recorded with this outcome.
pub(super) async fn insert(
    transaction: &mut Transaction<'_, Any>,
    movement: &Movement<'_>,
    outcome: Outcome,
) -> Result<(), sqlx::Error> {
    let Some(new) = movement.authorization.filter(|_| outcome == Outcome::Done) else { return Ok(()) };
    let insert = sqlx::query(
        "INSERT INTO authorizations (transaction_id, charge_key, reference, metadata, created_at)
         SELECT id, key, reference, $2, created_at FROM transactions WHERE kind = 'charge' AND key = $1",
    )
    .bind(movement.key)
    .bind(new.metadata);
    insert.execute(&mut **transaction).await?;
    Ok(())
}

/// Captures the authorized charges with these keys. Returns their number. On SQLite, the connection
/// must be in a write transaction.
pub(super) async fn capture_with(
    connection: &mut AnyConnection,
    kind: DatabaseKind,
    keys: &[&str],
) -> Result<usize, sqlx::Error> {
    match kind {
        DatabaseKind::Postgres => capture_in_one_statement(connection, keys).await,
        DatabaseKind::Sqlite => capture_in_statements(connection, keys).await,
    }
}

/// Captures the charges in one statement, on PostgreSQL.
async fn capture_in_one_statement(connection: &mut AnyConnection, keys: &[&str]) -> Result<usize, sqlx::Error> {
    let captures: Vec<i64> = sqlx::query_scalar(
        "WITH captured AS (
             DELETE FROM authorizations WHERE charge_key IN (SELECT json_array_elements_text($1::json)) RETURNING transaction_id
         ), recorded AS (
             INSERT INTO transactions (kind, key, login, amount, outcome, charge_key, created_at)
             SELECT 'capture', key, login, amount, 'done', key, $2 FROM transactions JOIN captured ON id = transaction_id
             RETURNING id, amount
         ), posted AS (
             INSERT INTO postings (transaction_id, account, amount)
             SELECT id, 'authorized', -amount FROM recorded UNION ALL SELECT id, 'revenue', amount FROM recorded
         )
         SELECT id FROM recorded",
    )
    .bind(json(&keys)?)
    .bind(Timestamp::now().as_microsecond())
    .fetch_all(connection)
    .await?;
    Ok(captures.len())
}

/// Captures the charges in several statements, on SQLite.
async fn capture_in_statements(connection: &mut AnyConnection, keys: &[&str]) -> Result<usize, sqlx::Error> {
    let charges: Vec<i64> = sqlx::query_scalar(
        "DELETE FROM authorizations WHERE charge_key IN (SELECT value FROM json_each($1)) RETURNING transaction_id",
    )
    .bind(json(&keys)?)
    .fetch_all(&mut *connection)
    .await?;
    if charges.is_empty() {
        return Ok(0);
    }
    let captures: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO transactions (kind, key, login, amount, outcome, charge_key, created_at)
         SELECT 'capture', key, login, amount, 'done', key, $2 FROM transactions WHERE id IN (SELECT value FROM json_each($1))
         RETURNING id",
    )
    .bind(json(&charges)?)
    .bind(Timestamp::now().as_microsecond())
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO postings (transaction_id, account, amount)
         SELECT id, 'authorized', -amount FROM transactions WHERE id IN (SELECT value FROM json_each($1))
         UNION ALL SELECT id, 'revenue', amount FROM transactions WHERE id IN (SELECT value FROM json_each($1))",
    )
    .bind(json(&captures)?)
    .execute(connection)
    .await?;
    Ok(captures.len())
}
