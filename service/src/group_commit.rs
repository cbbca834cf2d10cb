//! Requests to a database that go into one statement.
//!
//! Those that come while a statement is under way go into the next one together (group
//! commit: DeWitt et al., "Implementation Techniques for Main Memory Database
//! Systems", SIGMOD 1984), so that they share its round trip and its wait for the disk.
//! Nobody waits for company: one alone goes at once.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};

/// Requests in one statement at most.
const TOGETHER: usize = 64;

/// Requests that wait at most; who comes then waits to be let in.
const QUEUE: usize = 1024;

/// Longer than PostgreSQL is allowed to take for a statement. Nobody waits longer, and one
/// that hangs keeps the others up for so long only.
const TIMEOUT: Duration = Duration::from_secs(6);

/// The way to one statement, for requests that go together.
#[derive(Debug)]
pub struct GroupCommit<Request, Answer> {
    queue: mpsc::Sender<Waiting<Request, Answer>>,
}

impl<Request, Answer> Clone for GroupCommit<Request, Answer> {
    fn clone(&self) -> Self {
        GroupCommit { queue: self.queue.clone() }
    }
}

/// A request that waits, and who is told what came of it, or that nothing did.
#[derive(Debug)]
struct Waiting<Request, Answer> {
    request: Request,
    answer: oneshot::Sender<Result<Option<Answer>, sqlx::Error>>,
}

impl<Request: Send + 'static, Answer: Send + 'static> GroupCommit<Request, Answer> {
    /// The way to this statement; it ends with the last clone. The statement answers requests
    /// by their place among those it was given, and leaves out those for which it did nothing.
    /// Within a Tokio runtime.
    pub fn new<Statement>(statement: impl Fn(Vec<Request>) -> Statement + Send + 'static) -> Self
    where
        Statement: Future<Output = Result<Vec<(usize, Answer)>, sqlx::Error>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(statement, waiting));
        GroupCommit { queue }
    }

    /// The statement's answer to this request; `None` if it did nothing for it, or it is not known whether it did.
    ///
    /// # Errors
    /// If the database hangs, after six seconds, or the statement panics: then it is not known whether anything was done.
    pub async fn ask(&self, request: Request) -> Result<Option<Answer>, sqlx::Error> {
        let asked = async {
            let (answer, answered) = oneshot::channel();
            self.queue.send(Waiting { request, answer }).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
            answered.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
        };
        tokio::time::timeout(TIMEOUT, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// One statement after the other, each with all that came during the one before.
async fn run<Request, Answer, Statement>(
    statement: impl Fn(Vec<Request>) -> Statement,
    mut waiting: mpsc::Receiver<Waiting<Request, Answer>>,
) where
    Statement: Future<Output = Result<Vec<(usize, Answer)>, sqlx::Error>>,
{
    let mut together = Vec::new();
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        // Whoever gave up is told nothing any more, so nothing is begun for it.
        together.retain(|waiting| !waiting.answer.is_closed());
        if together.is_empty() {
            continue;
        }
        let (requests, mut asking): (Vec<_>, Vec<_>) =
            together.drain(..).map(|waiting| (waiting.request, Some(waiting.answer))).unzip();
        // A panic is a bug, as in a handler: it is told to those it was about, and the others go on.
        let statement = AssertUnwindSafe(statement(requests)).catch_unwind();
        let unknown: Option<fn() -> sqlx::Error> = match tokio::time::timeout(TIMEOUT, statement).await {
            Ok(Ok(Ok(answers))) => {
                for (place, answer) in answers {
                    if let Some(asking) = asking.get_mut(place).and_then(Option::take) {
                        let _ = asking.send(Ok(Some(answer)));
                    }
                }
                None
            }
            // Something about one of them was not usual, or the database is away. Each finds out for itself.
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, requests = asking.len(), "not done together");
                None
            }
            Ok(Err(_)) => {
                tracing::error!(requests = asking.len(), "a statement panicked");
                Some(|| sqlx::Error::WorkerCrashed)
            }
            Err(_) => {
                tracing::warn!(requests = asking.len(), "the database does not answer");
                Some(|| sqlx::Error::PoolTimedOut)
            }
        };
        for asking in asking.into_iter().flatten() {
            let _ = asking.send(unknown.map_or(Ok(None), |error| Err(error())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;

    use super::*;

    /// What each statement was given.
    type Statements = Arc<Mutex<Vec<Vec<i32>>>>;

    /// Statements that double even numbers, leave out odd ones and fail at 13.
    fn doubling() -> (Statements, GroupCommit<i32, i32>) {
        let statements = Statements::default();
        let seen = statements.clone();
        let commit = GroupCommit::new(move |numbers: Vec<i32>| {
            seen.lock().unwrap().push(numbers.clone());
            let doubled = numbers.iter().enumerate().filter(|(_, n)| **n % 2 == 0).map(|(place, n)| (place, 2 * n)).rev();
            let answer = if numbers.contains(&13) { Err(sqlx::Error::RowNotFound) } else { Ok(doubled.collect()) };
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                answer
            }
        });
        (statements, commit)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_during_a_statement_goes_into_the_next_and_each_has_its_own_answer() {
        let (statements, commit) = doubling();
        let first = commit.ask(0);
        let others = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            join_all((1..=100).map(|n| commit.ask(n))).await
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(first.unwrap(), Some(0));
        let others: Vec<_> = others.into_iter().map(Result::unwrap).collect();
        // 13 came with all up to 64 and had none of them done.
        let expected: Vec<_> = (1..=100).map(|n| (n > 64 && n % 2 == 0).then_some(2 * n)).collect();
        assert_eq!(others, expected);
        assert_eq!(statements.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1, 64, 36]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_for_who_gave_up() {
        let (statements, commit) = doubling();
        let first = commit.ask(2);
        let others = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let gave_up = tokio::time::timeout(Duration::from_millis(5), commit.ask(4)).await;
            (gave_up.is_err(), commit.ask(6).await.unwrap())
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!((first.unwrap(), others), (Some(4), (true, Some(12))));
        assert_eq!(*statements.lock().unwrap(), [vec![2], vec![6]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_hangs_is_an_error_and_not_the_end() {
        let commit = GroupCommit::new(|numbers: Vec<u64>| async move {
            tokio::time::sleep(Duration::from_secs(numbers[0])).await;
            Ok(vec![(0, "done")])
        });
        let began = tokio::time::Instant::now();
        let behind = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            commit.ask(3600).await
        };
        let (hangs, behind) = tokio::join!(commit.ask(3600), behind);
        assert!(matches!((hangs, behind), (Err(sqlx::Error::PoolTimedOut), Err(sqlx::Error::PoolTimedOut))));
        assert!(began.elapsed() < Duration::from_secs(8), "nobody waits for two statements that hang");
        assert_eq!(commit.ask(0).await.unwrap(), Some("done"));
    }

    #[tokio::test]
    async fn a_statement_that_panics_is_an_error_and_not_the_end() {
        let commit = GroupCommit::new(|numbers: Vec<u64>| async move {
            assert_eq!(numbers, [0], "planted");
            Ok(vec![(0, "done")])
        });
        assert!(matches!(commit.ask(1).await, Err(sqlx::Error::WorkerCrashed)));
        assert_eq!(commit.ask(0).await.unwrap(), Some("done"));
    }
}
