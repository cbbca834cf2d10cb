//! The usual movements, several in one statement, on PostgreSQL.
//!
//! A new key and a balance that allows the movement are what nearly every request
//! comes to. As a transaction of five statements it costs seven round trips and a
//! wait for the disk, and a busy account stays locked during most of it. Here those
//! that come while a statement is under way go into the next one together.
//!
//! Whatever is not usual changes nothing here and is left to the transaction: every
//! movement of an account of which one cannot be made, or is a repeat, or which
//! somebody else has locked; and all of them if another request with one of their
//! keys was faster. SQLite cannot do this in one statement, nor needs to: it
//! has no round trips.

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::{
    database::{Database, json},
    group_commit::GroupCommit,
};
use serde::Serialize;

use super::Movement;

/// An account takes part with all its movements or with none, so that their order does not matter: even the
/// withdrawals alone may not overdraw it, nor the payments alone exceed its limit. The unique key has the last
/// word: of two requests at once the second is refused as a whole. Keys are looked for one by one: a join would be
/// planned while the table is small, as a look through all of it, and stay so.
const MOVE: &str = "
    WITH asked AS (
        SELECT asked.*, (SELECT id FROM transactions WHERE kind = asked.kind AND key = asked.key) AS known
        FROM json_to_recordset($1::json)
            AS asked (n INT, kind TEXT, key TEXT, login TEXT, change BIGINT, amount BIGINT, against TEXT)
    ), wanted AS (
        SELECT login, sum(change)::BIGINT AS change,
            sum(least(change, 0))::BIGINT AS down, sum(greatest(change, 0))::BIGINT AS up
        FROM asked GROUP BY login HAVING count(known) = 0
    ), free AS (
        SELECT wanted.* FROM wanted JOIN accounts USING (login) FOR UPDATE OF accounts SKIP LOCKED
    ), moved AS (
        UPDATE accounts SET balance = balance + change FROM free
        WHERE accounts.login = free.login AND balance + down >= 0 AND balance + up <= $2
        RETURNING accounts.login, balance - change AS before
    ), entry AS (
        INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at)
        SELECT kind, key, login, amount, 'done', before + sum(change) OVER (PARTITION BY login ORDER BY n), $3
        FROM asked JOIN moved USING (login)
        RETURNING id, kind, key, balance
    ), posted AS (
        INSERT INTO postings (transaction_id, account, amount)
        SELECT id, 'customer:' || login, change FROM entry JOIN asked USING (kind, key)
        UNION ALL SELECT id, against, -change FROM entry JOIN asked USING (kind, key)
    )
    SELECT n, entry.balance FROM entry JOIN asked USING (kind, key)";

/// Moves money if nothing is unusual, together with others; its answer is the balance right after.
pub(super) type BatchedMovements = GroupCommit<Asked, Money>;

/// The way to this database.
pub(super) fn batched_movements(database: Database) -> BatchedMovements {
    GroupCommit::new(move |asked| move_all(database.clone(), asked))
}

/// A movement as the statement reads it.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    n: usize,
    kind: &'static str,
    key: String,
    login: String,
    change: i64,
    amount: i64,
    against: &'static str,
}

impl From<&Movement<'_>> for Asked {
    fn from(movement: &Movement<'_>) -> Self {
        Asked {
            n: 0,
            kind: movement.kind.as_str(),
            key: movement.key.to_owned(),
            login: movement.login.to_owned(),
            change: movement.change(),
            amount: movement.amount.minor(),
            against: movement.kind.against(),
        }
    }
}

/// Moves what can be moved; the place of each that was, and the balance right after it.
async fn move_all(database: Database, mut asked: Vec<Asked>) -> Result<Vec<(usize, Money)>, sqlx::Error> {
    for (n, asked) in asked.iter_mut().enumerate() {
        asked.n = n;
    }
    let moved: Vec<(i32, i64)> = sqlx::query_as(MOVE)
        .bind(json(&asked)?)
        .bind(Money::MAX.minor())
        .bind(Timestamp::now().as_microsecond())
        .fetch_all(&database.pool)
        .await?;
    Ok(moved.into_iter().filter_map(|(n, balance)| Some((n.try_into().ok()?, Money::from_minor(balance)))).collect())
}
