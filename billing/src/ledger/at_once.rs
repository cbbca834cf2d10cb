//! The usual movement in one statement, on PostgreSQL.
//!
//! A new key and a balance that allows the movement are what nearly every request
//! comes to. As a transaction of five statements it costs seven round trips, and a
//! busy account stays locked during four of them. As one statement, which is a
//! transaction of its own, it costs one. Whatever is not usual changes nothing here
//! and is left to the transaction. SQLite cannot do this, nor needs to: it has no
//! round trips.

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::database::Database;

use super::Movement;

/// Guarded by the key, so that a repeat fails without an error in the server's log.
/// The unique constraint has the last word: of two requests at once the second is
/// refused as a whole.
const MOVE: &str = "
    WITH moved AS (
        UPDATE accounts SET balance = balance + $4
        WHERE login = $3 AND balance + $4 BETWEEN 0 AND $5
          AND NOT EXISTS (SELECT 1 FROM transactions WHERE kind = $1 AND key = $2)
        RETURNING balance
    ), entry AS (
        INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at)
        SELECT $1, $2, $3, $6, 'done', balance, $7 FROM moved
        RETURNING id, balance
    ), posted AS (
        INSERT INTO postings (transaction_id, account, amount)
        SELECT id, 'customer:' || $3, $4 FROM entry UNION ALL SELECT id, $8, -$4 FROM entry
    )
    SELECT balance FROM entry";

/// Moves the money if nothing is unusual, and says the balance right after; `None`
/// if nothing was done.
///
/// # Errors
/// The database's: then the same key has to be asked again to learn the outcome.
pub(super) async fn move_money(database: &Database, movement: &Movement<'_>) -> Result<Option<Money>, sqlx::Error> {
    let moved: Result<Option<i64>, sqlx::Error> = sqlx::query_scalar(MOVE)
        .bind(movement.kind.as_str())
        .bind(movement.key)
        .bind(movement.login)
        .bind(movement.change())
        .bind(Money::MAX.minor())
        .bind(movement.amount.minor())
        .bind(Timestamp::now().as_microsecond())
        .bind(movement.kind.against())
        .fetch_optional(&database.pool)
        .await;
    match moved {
        Ok(balance) => Ok(balance.map(Money::from_minor)),
        // Another request with this key was faster.
        Err(sqlx::Error::Database(refused)) if refused.is_unique_violation() => Ok(None),
        Err(error) => Err(error),
    }
}
