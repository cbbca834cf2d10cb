//! Group commit: executes concurrent requests to a database in one statement.
//!
//! Requests that arrive while a statement runs form the batch of the next statement (group commit:
//! DeWitt et al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984). The
//! requests of a batch share its round trip and its wait for the disk. If no statement runs, a
//! single request is executed immediately: it does not wait for others.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};

/// The maximum number of requests in a batch.
const TOGETHER: usize = 64;

/// The capacity of the queue. If the queue is full, a caller waits until there is room for its
/// request.
const QUEUE: usize = 1024;

/// The time limit of a statement, and of a caller's wait. It is longer than the time limit of a
/// statement in PostgreSQL. A statement that hangs delays the other requests for at most this long.
const TIMEOUT: Duration = Duration::from_secs(6);

/// A handle to a task that executes requests in batches, with one statement per batch.
#[derive(Debug)]
pub struct GroupCommit<Request, Answer> {
    queue: mpsc::Sender<Waiting<Request, Answer>>,
}

impl<Request, Answer> Clone for GroupCommit<Request, Answer> {
    fn clone(&self) -> Self {
        GroupCommit { queue: self.queue.clone() }
    }
}

/// A queued request, and the channel for its answer. The answer is `None` if the statement did
/// nothing for the request.
#[derive(Debug)]
struct Waiting<Request, Answer> {
    request: Request,
    answer: oneshot::Sender<Result<Option<Answer>, sqlx::Error>>,
}

impl<Request: Send + 'static, Answer: Send + 'static> GroupCommit<Request, Answer> {
    /// Starts the task for this statement. The task ends when the last clone of the handle is
    /// dropped. The statement returns each answer with the index of its request in the batch, and
    /// omits the requests for which it did nothing. Call this within a Tokio runtime.
    pub fn new<Statement>(statement: impl Fn(Vec<Request>) -> Statement + Send + 'static) -> Self
    where
        Statement: Future<Output = Result<Vec<(usize, Answer)>, sqlx::Error>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(statement, waiting));
        GroupCommit { queue }
    }

    /// Executes a request and returns the statement's answer. Returns `None` if the statement did
    /// nothing for the request, or if this is not known.
    ///
    /// # Errors
    /// If the database does not respond within six seconds, or the statement panics. Whether the
    /// request was executed is then not known.
    pub async fn ask(&self, request: Request) -> Result<Option<Answer>, sqlx::Error> {
        let asked = async {
            let (answer, answered) = oneshot::channel();
            self.queue.send(Waiting { request, answer }).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
            answered.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
        };
        tokio::time::timeout(TIMEOUT, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Executes one statement at a time, each with the requests that arrived during the previous
/// statement.
async fn run<Request, Answer, Statement>(
    statement: impl Fn(Vec<Request>) -> Statement,
    mut waiting: mpsc::Receiver<Waiting<Request, Answer>>,
) where
    Statement: Future<Output = Result<Vec<(usize, Answer)>, sqlx::Error>>,
{
    let mut together = Vec::new();
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        // A caller that gave up receives no answer, so its request is not executed.
        together.retain(|waiting| !waiting.answer.is_closed());
        if together.is_empty() {
            continue;
        }
        let (requests, mut asking): (Vec<_>, Vec<_>) =
            together.drain(..).map(|waiting| (waiting.request, Some(waiting.answer))).unzip();
        // A panic is a bug, as in a handler. The callers of this batch receive an error, and later
        // batches continue.
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
            // One of the requests is a special case, or the database is unavailable. Each caller
            // finds out by itself.
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

    /// The batch of each statement.
    type Statements = Arc<Mutex<Vec<Vec<i32>>>>;

    /// Statements that double even numbers, omit odd numbers and fail at 13.
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
        // 13 is in the batch of the numbers up to 64, so none of them is done.
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
