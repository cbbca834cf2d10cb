//! The ID of the ledger.

use super::database::Ledger;
use crate::error::LedgerError;

impl Ledger {
    /// Returns the ID of this ledger, a UUID. It is created at the first call, and then stays the same for
    /// the lifetime of the database: its backups and copies have it, too.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn id(&self) -> Result<&str, LedgerError> {
        self.id.get_or_try_init(|| self.read_id()).await.map(String::as_str)
    }

    async fn read_id(&self) -> Result<String, LedgerError> {
        let select = "SELECT id FROM ledger_id WHERE singleton = 1";
        if let Some(id) = sqlx::query_scalar(select).fetch_optional(&self.database.pool).await? {
            return Ok(id);
        }
        sqlx::query("INSERT INTO ledger_id (singleton, id) VALUES (1, $1) ON CONFLICT (singleton) DO NOTHING")
            .bind(uuid::Uuid::new_v4().to_string())
            .execute(&self.database.pool)
            .await?;
        Ok(sqlx::query_scalar(select).fetch_one(&self.database.pool).await?)
    }
}
