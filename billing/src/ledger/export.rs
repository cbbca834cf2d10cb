//! The ledger's rows as they are, page by page, for an audit that does its own sums.

use orders_crds::{Money, money::json_number};
use serde::Serialize;
use sqlx::{Row, any::AnyRow};
use utoipa::ToSchema;

use super::Ledger;
use crate::error::LedgerError;

/// A transaction with its postings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExportedTransaction {
    /// Number in order of recording.
    pub id: i64,
    /// `refill`, `charge` or `refund`.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Of a refund: the key of the charge.
    pub charge_key: Option<String>,
    /// The customer.
    pub login: String,
    /// How much was asked for.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// `done`, `insufficient_funds`, `account_not_found`, `balance_limit` or `closed`.
    pub outcome: String,
    /// The postings.
    pub postings: Vec<ExportedPosting>,
}

/// One leg of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExportedPosting {
    /// `customer:LOGIN`, `cash` or `revenue`.
    pub account: String,
    /// What the account changed by.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
}

/// An account: the kept balance beside the sum of its postings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExportedAccount {
    /// The customer.
    pub login: String,
    /// The kept balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub balance: Money,
    /// The sum of the account's postings, taken in the same statement.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub posted: Money,
}

/// The whole ledger in a few numbers, taken in one statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    /// How many transactions there are.
    pub transactions: i64,
    /// How many postings there are.
    pub postings: i64,
    /// The sum of all postings: zero if the books balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub sum: Money,
}

impl Ledger {
    /// Up to `limit` transactions after the one numbered `after`, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn transactions(&self, after: i64, limit: i64) -> Result<Vec<ExportedTransaction>, LedgerError> {
        let rows: Vec<AnyRow> = sqlx::query(
            "SELECT t.id, t.kind, t.key, t.charge_key, t.login, t.amount, t.outcome, p.account, p.amount
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

    /// Up to `limit` accounts after the one of this login, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn accounts(&self, after: &str, limit: i64) -> Result<Vec<ExportedAccount>, LedgerError> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            // One pass over the postings a page: an index for this alone would cost each charge a write.
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

    /// The ledger in a few numbers.
    ///
    /// # Errors
    /// The database's.
    pub async fn summary(&self) -> Result<Summary, LedgerError> {
        let (transactions, postings, sum) = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM transactions), COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings",
        )
        .fetch_one(&self.database.pool)
        .await?;
        Ok(Summary { transactions, postings, sum: Money::from_minor(sum) })
    }
}
