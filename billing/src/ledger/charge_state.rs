//! Looks up the current state of a charge.

use orders_contracts::billing::ChargePhase;
use orders_crds::Money;
use sqlx::{Any, Executor, Row, any::AnyRow};

use super::{database::Ledger, movement::Outcome};
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
    /// The phase of the charge; `None` if it was refused or closed.
    pub phase: Option<ChargePhase>,
    /// The amount that was given back to the customer: the sum of the refunds, or the whole amount
    /// of a voided charge.
    pub refunded: Money,
}

impl Ledger {
    /// Returns the charge with this key, or `None` if the ledger has no such charge.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn find_charge(&self, key: &str) -> Result<Option<ChargeState>, LedgerError> {
        Ok(select_charge(&self.database.pool, key).await?)
    }
}

/// Selects the charge with this key, its phase and the sum of its refunds.
pub(super) async fn select_charge(
    database: impl Executor<'_, Database = Any>,
    key: &str,
) -> Result<Option<ChargeState>, sqlx::Error> {
    let row: Option<AnyRow> = sqlx::query(
        "SELECT login, amount, outcome, balance, (
             SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM transactions
             WHERE charge_key = $1 AND kind IN ('refund', 'void') AND outcome = 'done'),
             (SELECT COUNT(*) FROM authorizations WHERE charge_key = $1),
             (SELECT COUNT(*) FROM transactions WHERE kind = 'void' AND key = $1)
         FROM transactions WHERE kind = 'charge' AND key = $1",
    )
    .bind(key)
    .fetch_optional(database)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let outcome = Outcome::parse(&row.try_get::<String, _>(2)?)?;
    let (authorizations, voids): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
    let phase = match (authorizations, voids) {
        (0, 0) => ChargePhase::Captured,
        (0, _) => ChargePhase::Voided,
        _ => ChargePhase::Authorized,
    };
    Ok(Some(ChargeState {
        login: row.try_get(0)?,
        amount: Money::from_minor(row.try_get(1)?),
        outcome,
        phase: (outcome == Outcome::Done).then_some(phase),
        balance: row.try_get::<Option<i64>, _>(3)?.map(Money::from_minor),
        refunded: Money::from_minor(row.try_get(4)?),
    }))
}
