//! Group commit of the common movements: makes several movements in one statement, on PostgreSQL.
//!
//! Nearly every request has a new key and an account whose balance allows the movement. As a
//! transaction of five statements, such a request costs seven round trips and a wait for the disk,
//! and a busy account stays locked for most of that time. With group commit, the requests that
//! arrive while a statement runs share the next statement.
//!
//! The statement makes only the common movements and leaves all others to the transaction. It
//! leaves out all movements of an account if one of them is not allowed or is a repeat, or if
//! another transaction has locked the account. It leaves out all movements if another request
//! records one of their keys first. SQLite cannot do this in one statement. It does not need to,
//! because it has no round trips.

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::{
    database::{Database, json},
    group_commit::GroupCommit,
};
use serde::Serialize;

use super::Movement;

/// The statement makes either all movements of an account or none, so that their order does not
/// matter: even the charges alone must not overdraw the account, and the refills alone must not
/// exceed its limit. The unique constraint on the key is the final check: if two statements record
/// the same key at the same time, the second statement fails as a whole. The statement looks up
/// each key in a subquery. PostgreSQL would plan a join while the table is small, as a sequential
/// scan, and would keep that plan.
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

/// Makes common movements in batches. The result for a movement is the balance right after it.
pub(super) type BatchedMovements = GroupCommit<Asked, Money>;

/// Starts the group commit on this database.
pub(super) fn batched_movements(database: Database) -> BatchedMovements {
    GroupCommit::new(move |asked| move_all(database.clone(), asked))
}

/// A movement in the form that the statement reads.
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

/// Makes the movements that the statement allows. Returns the index of each movement that was made,
/// and the balance right after it.
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
