//! The usual movements, several in one statement, on PostgreSQL.
//!
//! A new key and a balance that allows the movement are what nearly every request
//! comes to. As a transaction of five statements it costs seven round trips and a
//! wait for the disk, and a busy account stays locked during most of it. Here those
//! that come while a statement is under way go into the next one together (group
//! commit: DeWitt et al., "Implementation Techniques for Main Memory Database
//! Systems", SIGMOD 1984). Nobody waits for company: one alone goes at once.
//!
//! Whatever is not usual changes nothing here and is left to the transaction: every
//! movement of an account of which one cannot be made, or is a repeat, or which
//! somebody else has locked. SQLite cannot do this, nor needs to: it has no round trips.

use std::time::Duration;

use jiff::Timestamp;
use orders_crds::Money;
use orders_service::database::Database;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::Movement;

/// Movements in one statement at most.
const TOGETHER: usize = 64;

/// Movements that wait at most; who comes then waits to be let in.
const QUEUE: usize = 1024;

/// Longer than PostgreSQL is allowed to take for a statement. One that hangs keeps the others up for so long only.
const TIMEOUT: Duration = Duration::from_secs(6);

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

/// The way to one database for movements that go together.
#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    queue: mpsc::Sender<Waiting>,
}

/// A movement that waits, and who is told the balance right after it, or that nothing was done.
#[derive(Debug)]
struct Waiting {
    asked: Asked,
    answer: oneshot::Sender<Result<Option<Money>, sqlx::Error>>,
}

/// A movement as the statement reads it.
#[derive(Debug, Serialize)]
struct Asked {
    n: usize,
    kind: &'static str,
    key: String,
    login: String,
    change: i64,
    amount: i64,
    against: &'static str,
}

impl GroupCommit {
    /// The way to this database; it ends with the last clone.
    pub(super) fn new(database: Database) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(database, waiting));
        GroupCommit { queue }
    }

    /// Moves the money if nothing is unusual, and says the balance right after; `None`
    /// if nothing was done, or it is not known whether it was.
    ///
    /// # Errors
    /// If the database hangs: then the same key has to be asked again to learn the outcome.
    pub(super) async fn move_money(&self, movement: &Movement<'_>) -> Result<Option<Money>, sqlx::Error> {
        let asked = Asked {
            n: 0,
            kind: movement.kind.as_str(),
            key: movement.key.to_owned(),
            login: movement.login.to_owned(),
            change: movement.change(),
            amount: movement.amount.minor(),
            against: movement.kind.against(),
        };
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { asked, answer }).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        answered.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }
}

/// One statement after the other, each with all that came during the one before.
async fn run(database: Database, mut waiting: mpsc::Receiver<Waiting>) {
    let mut together = Vec::new();
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        // Whoever gave up is told nothing any more, so nothing is begun for it.
        together.retain(|waiting| !waiting.answer.is_closed());
        if together.is_empty() {
            continue;
        }
        for (n, waiting) in together.iter_mut().enumerate() {
            waiting.asked.n = n;
        }
        let asked: Vec<&Asked> = together.iter().map(|waiting| &waiting.asked).collect();
        let moved = tokio::time::timeout(TIMEOUT, move_all(&database, &asked)).await;
        let hangs = moved.is_err();
        let mut balances = vec![None; together.len()];
        match moved {
            Ok(Ok(moved)) => moved.into_iter().for_each(|(n, balance)| balances[n] = Some(balance)),
            // Another request with one of these keys was faster, or the database is away. The transactions find out,
            // each for itself: they look for the key first.
            Ok(Err(error)) => tracing::debug!(%error, movements = balances.len(), "not moved together"),
            Err(_) => tracing::warn!(movements = balances.len(), "the database does not answer"),
        }
        for (waiting, balance) in together.drain(..).zip(balances) {
            let _ = waiting.answer.send(if hangs { Err(sqlx::Error::PoolTimedOut) } else { Ok(balance) });
        }
    }
}

/// Moves what can be moved; the place of each that was, and the balance right after it.
async fn move_all(database: &Database, asked: &[&Asked]) -> Result<Vec<(usize, Money)>, sqlx::Error> {
    let json = serde_json::to_string(asked).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let moved: Vec<(i32, i64)> = sqlx::query_as(MOVE)
        .bind(json)
        .bind(Money::MAX.minor())
        .bind(Timestamp::now().as_microsecond())
        .fetch_all(&database.pool)
        .await?;
    let place = |n: i32| usize::try_from(n).ok().filter(|n| *n < asked.len());
    Ok(moved.into_iter().filter_map(|(n, balance)| Some((place(n)?, Money::from_minor(balance)))).collect())
}
