//! Generates load: closed loops with a number of clients, and open loops with a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::statistics::Times;

/// The number of requests in flight at which an open loop stops. It is well below the 2048 that the
/// api-server accepts, so that the benchmark never causes refusals.
const MAX_IN_FLIGHT: usize = 1000;

/// The result of a load.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// The duration of each operation.
    pub times: Times,
    /// The time from the start of the first operation to the end of the last.
    pub took: Duration,
    /// Whether the loop stopped because too many requests were in flight.
    pub is_saturated: bool,
}

impl Load {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.times.count() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Adds the result of another load.
    pub fn add(&mut self, other: &Load) {
        self.times.add(&other.times);
        self.took += other.took;
        self.is_saturated |= other.is_saturated;
    }
}

/// Runs a closed loop: each client starts its next operation when the last one has ended, until the
/// duration is over. `work` gets the client's number and returns the time to record.
///
/// # Errors
/// The first error of `work`.
pub async fn run_closed_loop<F, W>(clients: u32, duration: Duration, work: F) -> Result<Load>
where
    F: Fn(u32) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Duration>> + Send,
{
    let started = Instant::now();
    run_clients(clients, move |client| {
        let work = work.clone();
        async move {
            let mut times = Times::default();
            while times.count() == 0 || started.elapsed() < duration {
                times.record(work(client).await?);
            }
            Ok(times)
        }
    })
    .await
}

/// Runs `count` operations with this number of clients, as fast as possible.
///
/// # Errors
/// The first error of `work`.
pub async fn run_all<F, W>(clients: u32, count: usize, work: F) -> Result<Load>
where
    F: Fn(u32) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    run_clients(clients, move |client| {
        let (work, next) = (work.clone(), next.clone());
        async move {
            let mut times = Times::default();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let started = Instant::now();
                work(client).await?;
                times.record(started.elapsed());
            }
            Ok(times)
        }
    })
    .await
}

async fn run_clients<F, W>(clients: u32, client: F) -> Result<Load>
where
    F: Fn(u32) -> W,
    W: Future<Output = Result<Times>> + Send + 'static,
{
    let started = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(client(number));
    }
    let mut load = Load::default();
    while let Some(times) = running.join_next().await {
        load.times.add(&times??);
    }
    load.took = started.elapsed();
    Ok(load)
}

/// Runs an open loop: it starts `rate` operations per second, at even intervals, even if earlier ones have not
/// ended. The time of each operation counts from its scheduled start, so that it includes waiting.
///
/// # Errors
/// The first error of `work`.
pub async fn run_open_loop<F, W>(rate: u32, duration: Duration, work: F) -> Result<Load>
where
    F: Fn(u32) -> W,
    W: Future<Output = Result<Duration>> + Send + 'static,
{
    let started = Instant::now();
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut running = JoinSet::new();
    let mut load = Load::default();
    let count = (f64::from(rate) * duration.as_secs_f64()) as u32;
    for number in 0..count {
        let due = started + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        sleep_until(due).await;
        let Ok(permit) = in_flight.clone().try_acquire_owned() else {
            load.is_saturated = true;
            break;
        };
        let work = work(number);
        running.spawn(async move {
            work.await?;
            drop(permit);
            Ok::<_, anyhow::Error>(due.elapsed())
        });
        while let Some(done) = running.try_join_next() {
            load.times.record(done??);
        }
    }
    while let Some(done) = running.join_next().await {
        load.times.record(done??);
    }
    load.took = started.elapsed();
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_loop_runs_each_client_at_least_once() {
        let load = run_closed_loop(3, Duration::ZERO, |_| async { Ok(Duration::from_millis(5)) }).await.unwrap();
        assert_eq!(load.times.count(), 3);
    }

    #[tokio::test]
    async fn exactly_this_number_of_operations_runs() {
        assert_eq!(run_all(4, 10, |_| async { Ok(()) }).await.unwrap().times.count(), 10);
    }

    #[test]
    fn loads_are_added() {
        let mut turn = Load { took: Duration::from_secs(1), ..Load::default() };
        turn.times.record(Duration::from_millis(5));
        let mut load = turn.clone();
        load.add(&turn);
        assert_eq!((load.times.count(), load.took, load.rate()), (2, Duration::from_secs(2), 1.0));
    }

    #[tokio::test]
    async fn an_open_loop_counts_from_the_scheduled_start() {
        let load = run_open_loop(100, Duration::from_millis(100), |_| async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(Duration::ZERO)
        });
        let load = load.await.unwrap();
        assert_eq!((load.times.count(), load.is_saturated), (10, false));
        assert!(load.times.percentile(0.5) >= 29.0);
    }

    #[tokio::test]
    async fn an_error_ends_the_loop() {
        assert!(run_all(2, 5, |_| async { anyhow::bail!("no") }).await.is_err());
    }
}
