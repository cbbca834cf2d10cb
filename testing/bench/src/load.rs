//! Work done again and again, by so many at once or so often a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::statistics::Times;

/// Requests under way at which an open loop is given up: well below the 2048 that the
/// api-server takes, so that it is never the bench that has orders refused.
const MOST_UNDER_WAY: usize = 1000;

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// How long each took.
    pub times: Times,
    /// From the first beginning to the last end.
    pub took: Duration,
    /// Whether it was given up because too much was under way.
    pub gave_up: bool,
}

impl Load {
    /// How much was done in a second.
    pub fn rate(&self) -> f64 {
        self.times.count() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Goes on with what was done at another time.
    pub fn add(&mut self, other: &Load) {
        self.times.add(&other.times);
        self.took += other.took;
        self.gave_up |= other.gave_up;
    }
}

/// A closed loop: each of so many clients begins anew when it has ended, until the time
/// is over. `work` gets the client's number and returns the time that counts.
///
/// # Errors
/// The first of the work.
pub async fn closed<F, W>(clients: u32, duration: Duration, work: F) -> Result<Load>
where
    F: Fn(u32) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Duration>> + Send,
{
    let started = Instant::now();
    each(clients, move |client| {
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

/// So many clients do so much together, as fast as they can.
///
/// # Errors
/// The first of the work.
pub async fn all<F, W>(clients: u32, count: usize, work: F) -> Result<Load>
where
    F: Fn(u32) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    each(clients, move |client| {
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

async fn each<F, W>(clients: u32, client: F) -> Result<Load>
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

/// An open loop: so often a second, evenly, whether the earlier ones have ended or not.
/// The time of each counts from when it was due, so that what waits is not left out.
///
/// # Errors
/// The first of the work.
pub async fn open<F, W>(rate: u32, duration: Duration, work: F) -> Result<Load>
where
    F: Fn(u32) -> W,
    W: Future<Output = Result<Duration>> + Send + 'static,
{
    let started = Instant::now();
    let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
    let mut running = JoinSet::new();
    let mut load = Load::default();
    let count = (f64::from(rate) * duration.as_secs_f64()) as u32;
    for number in 0..count {
        let due = started + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        sleep_until(due).await;
        let Ok(permit) = under_way.clone().try_acquire_owned() else {
            load.gave_up = true;
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
    async fn a_closed_loop_has_each_client_work_at_least_once() {
        let load = closed(3, Duration::ZERO, |_| async { Ok(Duration::from_millis(5)) }).await.unwrap();
        assert_eq!(load.times.count(), 3);
    }

    #[tokio::test]
    async fn so_much_is_done_and_no_more() {
        assert_eq!(all(4, 10, |_| async { Ok(()) }).await.unwrap().times.count(), 10);
    }

    #[test]
    fn turns_add_up() {
        let mut turn = Load { took: Duration::from_secs(1), ..Load::default() };
        turn.times.record(Duration::from_millis(5));
        let mut load = turn.clone();
        load.add(&turn);
        assert_eq!((load.times.count(), load.took, load.rate()), (2, Duration::from_secs(2), 1.0));
    }

    #[tokio::test]
    async fn an_open_loop_counts_from_when_it_was_due() {
        let load = open(100, Duration::from_millis(100), |_| async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(Duration::ZERO)
        });
        let load = load.await.unwrap();
        assert_eq!((load.times.count(), load.gave_up), (10, false));
        assert!(load.times.percentile(0.5) >= 29.0);
    }

    #[tokio::test]
    async fn an_error_ends_the_loop() {
        assert!(all(2, 5, |_| async { anyhow::bail!("no") }).await.is_err());
    }
}
