//! Operations on accounts: register, ensure that an account exists, and read the balance.

use orders_crds::Money;
use sqlx::{Any, Executor};

use super::database::Ledger;
use crate::error::LedgerError;

/// An existing account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedAccount {
    /// The current balance.
    pub balance: Money,
    /// Whether the account was opened with this key.
    pub is_opened_by_key: bool,
}

impl Ledger {
    /// Opens an account with a balance of zero. If the account already exists, the call succeeds
    /// only with the key that opened the account. Returns whether the account already existed.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyRegistered`] or [`LedgerError::Database`].
    pub async fn register(&self, login: &str, key: Option<&str>) -> Result<bool, LedgerError> {
        let inserted =
            sqlx::query("INSERT INTO accounts (login, balance, register_key) VALUES ($1, 0, $2) ON CONFLICT (login) DO NOTHING")
                .bind(login)
                .bind(key)
                .execute(&self.database.pool)
                .await?;
        if inserted.rows_affected() == 1 {
            return Ok(false);
        }
        let opened_with: Option<String> = sqlx::query_scalar("SELECT register_key FROM accounts WHERE login = $1")
            .bind(login)
            .fetch_one(&self.database.pool)
            .await?;
        if key.is_some() && opened_with.as_deref() == key { Ok(true) } else { Err(LedgerError::AlreadyRegistered) }
    }

    /// Ensures that the account exists: opens it with a balance of zero if it does not exist. A
    /// repeated call changes nothing and returns the current balance.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn ensure_account(&self, login: &str, key: &str) -> Result<OpenedAccount, LedgerError> {
        loop {
            let account: Option<(i64, Option<String>)> =
                sqlx::query_as("SELECT balance, register_key FROM accounts WHERE login = $1")
                    .bind(login)
                    .fetch_optional(&self.database.pool)
                    .await?;
            if let Some((balance, opened_with)) = account {
                let is_opened_by_key = opened_with.as_deref() == Some(key);
                return Ok(OpenedAccount { balance: Money::from_minor(balance), is_opened_by_key });
            }
            match self.register(login, Some(key)).await {
                Ok(_) | Err(LedgerError::AlreadyRegistered) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the balance of an account.
    ///
    /// # Errors
    /// [`LedgerError::AccountNotFound`] or [`LedgerError::Database`].
    pub async fn balance(&self, login: &str) -> Result<Money, LedgerError> {
        select_balance(&self.database.pool, login).await?.ok_or(LedgerError::AccountNotFound)
    }
}

/// Returns the balance of an account, or `None` if there is no account.
pub(super) async fn select_balance(
    database: impl Executor<'_, Database = Any>,
    login: &str,
) -> Result<Option<Money>, sqlx::Error> {
    let balance = sqlx::query_scalar("SELECT balance FROM accounts WHERE login = $1").bind(login);
    Ok(balance.fetch_optional(database).await?.map(Money::from_minor))
}
