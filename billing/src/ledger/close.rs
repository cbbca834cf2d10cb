//! Closes charges that have not been made.

use orders_crds::Money;

use super::{
    accounts::select_balance,
    database::Ledger,
    movement::{Kind, Movement, Outcome, RecordedMovement},
    outbox::{self, Recipient},
    record::{find_recorded, insert_transaction},
};
use crate::error::LedgerError;

impl Ledger {
    /// Closes a charge that has not been made, so that it can no longer be made. A charge that
    /// already has an outcome stays unchanged, and the result contains that outcome.
    ///
    /// # Errors
    /// [`LedgerError::KeyReused`] if the key belongs to another charge, or
    /// [`LedgerError::Database`].
    pub async fn close(&self, key: &str, login: &str, amount: Money) -> Result<RecordedMovement, LedgerError> {
        self.close_in_transaction(key, login, amount, Recipient::Nobody).await
    }

    /// Does the same as [`Ledger::close`], and adds the outcome to the outbox if it has a recipient.
    pub(super) async fn close_in_transaction(
        &self,
        key: &str,
        login: &str,
        amount: Money,
        recipient: Recipient<'_>,
    ) -> Result<RecordedMovement, LedgerError> {
        let charge = Movement { kind: Kind::Charge, key, login, amount, charge_key: None, authorization: None };
        loop {
            let mut transaction = self.database.begin_write().await?;
            let recorded = match find_recorded(&mut transaction, &charge).await? {
                Some(first) => first,
                None => {
                    let balance = select_balance(&mut *transaction, login).await?;
                    if !insert_transaction(&mut transaction, &charge, Outcome::Closed, balance).await? {
                        // A concurrent request recorded this key first: roll back, and read what
                        // that request recorded.
                        transaction.rollback().await?;
                        continue;
                    }
                    RecordedMovement { outcome: Outcome::Closed, balance, repeated: false }
                }
            };
            outbox::add(&mut transaction, &charge, recipient).await?;
            transaction.commit().await?;
            return Ok(recorded);
        }
    }
}
