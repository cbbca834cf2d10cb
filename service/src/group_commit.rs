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
const MAX_BATCH: usize = 64;

/// The capacity of the queue. If the queue is full, a caller waits until there is room for its
/// request.
const QUEUE: usize = 1024;

/// The time limit of a statement, and of a caller's wait. It is longer than the time limit of a
/// statement in PostgreSQL. A statement that hangs delays the other requests for at most this long.
const TIMEOUT: Duration = Duration::from_secs(6);

/// A handle to a task that executes requests in batches, with one statement per batch.
#[derive(Debug)]
pub struct GroupCommit<Request, Output> {
    queue: mpsc::Sender<QueuedRequest<Request, Output>>,
}

impl<Request, Output> Clone for GroupCommit<Request, Output> {
    fn clone(&self) -> Self {
        GroupCommit { queue: self.queue.clone() }
    }
}

/// A queued request, and the channel for its output. The output is `None` if the statement did
/// nothing for the request.
#[derive(Debug)]
struct QueuedRequest<Request, Output> {
    request: Request,
    sender: oneshot::Sender<Result<Option<Output>, sqlx::Error>>,
}

impl<Request: Send + 'static, Output: Send + 'static> GroupCommit<Request, Output> {
    /// Starts the task for this statement. The task ends when the last clone of the handle is
    /// dropped. The statement returns each output with the index of its request in the batch, and
    /// omits the requests for which it did nothing. Call this within a Tokio runtime.
    pub fn new<Statement>(statement: impl Fn(Vec<Request>) -> Statement + Send + 'static) -> Self
    where
        Statement: Future<Output = Result<Vec<(usize, Output)>, sqlx::Error>> + Send + 'static,
    {
        let (queue, requests) = mpsc::channel(QUEUE);
        tokio::spawn(run(statement, requests));
        GroupCommit { queue }
    }

    /// Executes a request and returns the statement's output. Returns `None` if the statement did
    /// nothing for the request, or if this is not known.
    ///
    /// # Errors
    /// If the database does not respond within six seconds, or the statement panics. Whether the
    /// request was executed is then not known.
    pub async fn execute(&self, request: Request) -> Result<Option<Output>, sqlx::Error> {
        let executing = async {
            let (sender, receiver) = oneshot::channel();
            self.queue.send(QueuedRequest { request, sender }).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
            receiver.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
        };
        tokio::time::timeout(TIMEOUT, executing).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Executes one statement at a time, each with the requests that arrived during the previous
/// statement.
async fn run<Request, Output, Statement>(
    statement: impl Fn(Vec<Request>) -> Statement,
    mut queue: mpsc::Receiver<QueuedRequest<Request, Output>>,
) where
    Statement: Future<Output = Result<Vec<(usize, Output)>, sqlx::Error>>,
{
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // A caller that gave up receives no output, so its request is not executed.
        batch.retain(|queued| !queued.sender.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (requests, mut senders): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|queued| (queued.request, Some(queued.sender))).unzip();
        // A panic is a bug, as in a handler. The callers of this batch receive an error, and later
        // batches continue.
        let statement = AssertUnwindSafe(statement(requests)).catch_unwind();
        let error: Option<fn() -> sqlx::Error> = match tokio::time::timeout(TIMEOUT, statement).await {
            Ok(Ok(Ok(outputs))) => {
                for (index, output) in outputs {
                    if let Some(sender) = senders.get_mut(index).and_then(Option::take) {
                        let _ = sender.send(Ok(Some(output)));
                    }
                }
                None
            }
            // One of the requests is a special case, or the database is unavailable. Each caller
            // executes its request alone.
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, requests = senders.len(), "a batch failed; its requests are executed one by one");
                None
            }
            Ok(Err(_)) => {
                tracing::error!(requests = senders.len(), "a statement panicked");
                Some(|| sqlx::Error::WorkerCrashed)
            }
            Err(_) => {
                tracing::warn!(requests = senders.len(), "the database does not respond");
                Some(|| sqlx::Error::PoolTimedOut)
            }
        };
        for sender in senders.into_iter().flatten() {
            let _ = sender.send(error.map_or(Ok(None), |error| Err(error())));
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
        let executed = statements.clone();
        let commit = GroupCommit::new(move |numbers: Vec<i32>| {
            executed.lock().unwrap().push(numbers.clone());
            let doubled = numbers.iter().enumerate().filter(|(_, n)| **n % 2 == 0).map(|(index, n)| (index, 2 * n)).rev();
            let output = if numbers.contains(&13) { Err(sqlx::Error::RowNotFound) } else { Ok(doubled.collect()) };
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                output
            }
        });
        (statements, commit)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_arrive_during_a_statement_form_the_next_batch_and_each_has_its_own_output() {
        let (statements, commit) = doubling();
        let first = commit.execute(0);
        let others = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            join_all((1..=100).map(|n| commit.execute(n))).await
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
    async fn the_request_of_a_caller_that_gave_up_is_not_executed() {
        let (statements, commit) = doubling();
        let first = commit.execute(2);
        let others = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let gave_up = tokio::time::timeout(Duration::from_millis(5), commit.execute(4)).await;
            (gave_up.is_err(), commit.execute(6).await.unwrap())
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!((first.unwrap(), others), (Some(4), (true, Some(12))));
        assert_eq!(*statements.lock().unwrap(), [vec![2], vec![6]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_hangs_fails_and_later_batches_continue() {
        let commit = GroupCommit::new(|numbers: Vec<u64>| async move {
            tokio::time::sleep(Duration::from_secs(numbers[0])).await;
            Ok(vec![(0, "done")])
        });
        let start = tokio::time::Instant::now();
        let queued = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            commit.execute(3600).await
        };
        let (hanging, queued) = tokio::join!(commit.execute(3600), queued);
        assert!(matches!((hanging, queued), (Err(sqlx::Error::PoolTimedOut), Err(sqlx::Error::PoolTimedOut))));
        assert!(start.elapsed() < Duration::from_secs(8), "no caller waits for two statements that hang");
        assert_eq!(commit.execute(0).await.unwrap(), Some("done"));
    }

    #[tokio::test]
    async fn a_statement_that_panics_fails_and_later_batches_continue() {
        let commit = GroupCommit::new(|numbers: Vec<u64>| async move {
            assert_eq!(numbers, [0], "a deliberate panic");
            Ok(vec![(0, "done")])
        });
        assert!(matches!(commit.execute(1).await, Err(sqlx::Error::WorkerCrashed)));
        assert_eq!(commit.execute(0).await.unwrap(), Some("done"));
    }
}
