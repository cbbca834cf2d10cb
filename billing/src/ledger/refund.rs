//! Refunds charges.

use orders_crds::Money;

use super::{
    authorizations,
    charge_state::select_charge,
    database::Ledger,
    movement::{Kind, Movement, Outcome, RecordedMovement, Refund},
    outbox::{self, Recipient},
    record::{find_recorded, insert_transaction, update_balance},
};
use crate::error::LedgerError;

impl Ledger {
    /// Refunds a charge, once for each key of a refund. An authorized charge is captured by its
    /// refund.
    ///
    /// # Errors
    /// [`LedgerError::ChargeNotFound`], [`LedgerError::NotCharged`],
    /// [`LedgerError::RefundTooLarge`], [`LedgerError::KeyReused`], [`LedgerError::BalanceLimit`]
    /// or [`LedgerError::Database`]. After a database error, it is unknown whether money moved.
    /// After any other error, no money moved.
    pub async fn refund(&self, refund: &Refund<'_>) -> Result<RecordedMovement, LedgerError> {
        self.refund_in_transaction(refund, Recipient::Nobody).await
    }

    /// Does the same as [`Ledger::refund`], and adds the outcome to the outbox if it has a recipient.
    pub(super) async fn refund_in_transaction(
        &self,
        refund: &Refund<'_>,
        recipient: Recipient<'_>,
    ) -> Result<RecordedMovement, LedgerError> {
        let movement = Movement {
            kind: Kind::Refund,
            key: refund.key,
            login: refund.login,
            amount: refund.amount,
            charge_key: Some(refund.charge_key),
            authorization: None,
        };
        loop {
            let mut transaction = self.database.begin_write().await?;
            if let Some(first) = find_recorded(&mut transaction, &movement).await? {
                outbox::add(&mut transaction, &movement, recipient).await?;
                transaction.commit().await?;
                return Ok(first);
            }
            let charge = select_charge(&mut *transaction, refund.charge_key).await?;
            let charge = charge.filter(|charge| charge.login == refund.login).ok_or(LedgerError::ChargeNotFound)?;
            if charge.outcome != Outcome::Done {
                return Err(LedgerError::NotCharged);
            }
            // This update locks the account, so that refunds of one charge are made one after the
            // other.
            let (outcome, balance) = update_balance(&mut transaction, &movement).await?;
            match outcome {
                Outcome::Done => {}
                // An account is never deleted, a refund raises the balance, and only a charge is
                // closed or has a reference. So the balance limit is the only possible refusal.
                Outcome::BalanceLimit
                | Outcome::AccountNotFound
                | Outcome::InsufficientFunds
                | Outcome::Closed
                | Outcome::AlreadyExists => return Err(LedgerError::BalanceLimit),
            }
            // Another request may have recorded the same key while this request waited for the
            // lock. In this case, this request is a repeat.
            if find_recorded(&mut transaction, &movement).await?.is_some() {
                transaction.rollback().await?;
                continue;
            }
            let refunded =
                select_charge(&mut *transaction, refund.charge_key).await?.map_or(Money::ZERO, |charge| charge.refunded);
            if refunded.minor() + refund.amount.minor() > charge.amount.minor() {
                return Err(LedgerError::RefundTooLarge);
            }
            // A refund is of a captured charge, so an authorized charge is captured first.
            authorizations::capture_with(&mut transaction, self.database.kind, &[refund.charge_key]).await?;
            if insert_transaction(&mut transaction, &movement, outcome, balance).await? {
                outbox::add(&mut transaction, &movement, recipient).await?;
                transaction.commit().await?;
                return Ok(RecordedMovement { outcome, balance, repeated: false });
            }
            transaction.rollback().await?;
        }
    }
}
