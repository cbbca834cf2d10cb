//! Exports the ledger's rows page by page, for an audit that computes its own sums.

use orders_contracts::billing::{ExportedAccount, ExportedPosting, ExportedTransaction, Summary};
use orders_crds::Money;
use sqlx::{Row, any::AnyRow};

use super::database::Ledger;
use crate::error::LedgerError;

impl Ledger {
    /// Returns up to `limit` transactions whose IDs are greater than `after`, in the order of their
    /// IDs.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn transactions(&self, after: i64, limit: i64) -> Result<Vec<ExportedTransaction>, LedgerError> {
        let rows: Vec<AnyRow> = sqlx::query(
            "SELECT t.id, t.kind, t.key, t.charge_key, t.login, t.amount, t.outcome, p.account, p.amount, t.created_at
             FROM (SELECT * FROM transactions WHERE id > $1 ORDER BY id LIMIT $2) t
             LEFT JOIN postings p ON p.transaction_id = t.id ORDER BY t.id, p.account",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.database.pool)
        .await?;
        let mut transactions: Vec<ExportedTransaction> = Vec::new();
        for row in rows {
            let id = row.try_get(0)?;
            if transactions.last().is_none_or(|last| last.id != id) {
                transactions.push(ExportedTransaction {
                    id,
                    kind: row.try_get(1)?,
                    key: row.try_get(2)?,
                    charge_key: row.try_get(3)?,
                    login: row.try_get(4)?,
                    amount: Money::from_minor(row.try_get(5)?),
                    outcome: row.try_get(6)?,
                    created_at: row.try_get(9)?,
                    postings: Vec::new(),
                });
            }
            let (account, amount): (Option<String>, Option<i64>) = (row.try_get(7)?, row.try_get(8)?);
            if let (Some(last), Some(account), Some(amount)) = (transactions.last_mut(), account, amount) {
                last.postings.push(ExportedPosting { account, amount: Money::from_minor(amount) });
            }
        }
        Ok(transactions)
    }

    /// Returns up to `limit` accounts whose logins follow `after`, in the order of their logins.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn accounts(&self, after: &str, limit: i64) -> Result<Vec<ExportedAccount>, LedgerError> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            // Each page reads the postings once. An index for this query alone would cost each
            // charge another write.
            "SELECT a.login, a.balance, CAST(COALESCE(SUM(p.amount), 0) AS BIGINT)
             FROM (SELECT login, balance FROM accounts WHERE login > $1 ORDER BY login LIMIT $2) a
             LEFT JOIN postings p ON p.account = 'customer:' || a.login
             GROUP BY a.login, a.balance ORDER BY a.login",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.database.pool)
        .await?;
        let account = |(login, balance, posted)| ExportedAccount {
            login,
            balance: Money::from_minor(balance),
            posted: Money::from_minor(posted),
        };
        Ok(rows.into_iter().map(account).collect())
    }

    /// Returns the number of transactions, the number of postings and the sum of all postings.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn summary(&self) -> Result<Summary, LedgerError> {
        let (transactions, postings, sum) = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM transactions), COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings",
        )
        .fetch_one(&self.database.pool)
        .await?;
        Ok(Summary { transactions, postings, sum: Money::from_minor(sum) })
    }
}
