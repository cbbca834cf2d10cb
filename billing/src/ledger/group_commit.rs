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
//! records one of their keys or references first. SQLite cannot do this in one statement. It does not
//! need to, because it has no round trips.

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::{
    database::{Database, json},
    group_commit::GroupCommit,
};
use serde::Serialize;

use super::movement::Movement;

/// Records a batch of movements. The statement makes either all movements of an account or none, so
/// that their order does not matter: even the charges alone must not overdraw the account, and the
/// refills alone must not exceed its limit. The unique indexes of the keys and the references are the
/// final check: if two statements record the same key or reference at the same time, the second
/// statement fails as a whole. The statement looks up each key and reference in a subquery. PostgreSQL
/// would plan a join while the table is small, as a sequential scan, and would keep that plan.
const RECORD_BATCH: &str = "
    WITH requested AS (
        SELECT requested.*,
            (SELECT id FROM transactions WHERE kind = requested.kind AND key = requested.key) AS existing_id,
            (SELECT id FROM transactions WHERE reference = requested.reference) AS conflicting_id
        FROM json_to_recordset($1::json) AS requested (
            n INT, kind TEXT, key TEXT, login TEXT, change BIGINT, amount BIGINT,
            from_account TEXT, to_account TEXT, reference TEXT, metadata TEXT)
    ), account_changes AS (
        SELECT login, sum(change)::BIGINT AS change,
            sum(least(change, 0))::BIGINT AS decrease, sum(greatest(change, 0))::BIGINT AS increase
        FROM requested GROUP BY login HAVING count(existing_id) = 0 AND count(conflicting_id) = 0
    ), locked_accounts AS (
        SELECT account_changes.* FROM account_changes JOIN accounts USING (login) FOR UPDATE OF accounts SKIP LOCKED
    ), updated_accounts AS (
        UPDATE accounts SET balance = balance + change FROM locked_accounts
        WHERE accounts.login = locked_accounts.login AND balance + decrease >= 0 AND balance + increase <= $2
        RETURNING accounts.login, balance - change AS previous_balance
    ), recorded AS (
        INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at, reference)
        SELECT kind, key, login, amount, 'done', previous_balance + sum(change) OVER (PARTITION BY login ORDER BY n), $3, reference
        FROM requested JOIN updated_accounts USING (login)
        RETURNING id, kind, key, balance
    ), posted AS (
        INSERT INTO postings (transaction_id, account, amount)
        SELECT id, from_account, -amount FROM recorded JOIN requested USING (kind, key)
        UNION ALL SELECT id, to_account, amount FROM recorded JOIN requested USING (kind, key)
    ), authorized AS (
        INSERT INTO authorizations (transaction_id, charge_key, reference, metadata, created_at)
        SELECT id, key, reference, metadata, $3 FROM recorded JOIN requested USING (kind, key) WHERE reference IS NOT NULL
    )
    SELECT n, recorded.balance FROM recorded JOIN requested USING (kind, key)";

/// Makes common movements in batches. The result for a movement is the balance right after it.
pub(super) type MovementBatcher = GroupCommit<MovementRow, Money>;

/// Starts the group commit on this database.
pub(super) fn start_batcher(database: Database) -> MovementBatcher {
    GroupCommit::new(move |rows| record_batch(database.clone(), rows))
}

/// A movement in the form that the statement reads.
#[derive(Debug, Serialize)]
pub(super) struct MovementRow {
    /// The index of the movement in its batch.
    n: usize,
    kind: &'static str,
    key: String,
    login: String,
    change: i64,
    amount: i64,
    from_account: String,
    to_account: String,
    reference: Option<String>,
    metadata: Option<String>,
}

impl From<&Movement<'_>> for MovementRow {
    fn from(movement: &Movement<'_>) -> Self {
        let (from_account, to_account) = movement.accounts();
        MovementRow {
            n: 0,
            kind: movement.kind.as_str(),
            key: movement.key.to_owned(),
            login: movement.login.to_owned(),
            change: movement.change(),
            amount: movement.amount.minor(),
            from_account,
            to_account,
            reference: movement.authorization.map(|authorization| authorization.reference.to_owned()),
            metadata: movement.authorization.map(|authorization| authorization.metadata.to_owned()),
        }
    }
}

/// Makes the movements that the statement allows. Returns the index of each movement that was made,
/// and the balance right after it.
async fn record_batch(database: Database, mut rows: Vec<MovementRow>) -> Result<Vec<(usize, Money)>, sqlx::Error> {
    for (n, row) in rows.iter_mut().enumerate() {
        row.n = n;
    }
    let balances: Vec<(i32, i64)> = sqlx::query_as(RECORD_BATCH)
        .bind(json(&rows)?)
        .bind(Money::MAX.minor())
        .bind(Timestamp::now().as_microsecond())
        .fetch_all(&database.pool)
        .await?;
    Ok(balances.into_iter().filter_map(|(n, balance)| Some((n.try_into().ok()?, Money::from_minor(balance)))).collect())
}
