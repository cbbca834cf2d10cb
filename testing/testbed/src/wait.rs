//! Waiting with a time limit, and free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// How long the test harnesses wait for an expected result. No result takes this long: the limit only ensures that every
/// wait ends, on a machine of any speed. Tests of timing requirements use their own limits, not this one.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

/// The beginning of the error of [`wait_for`] and [`wait_until`] after the limit has passed.
pub const TIMED_OUT: &str = "timed out after";

/// Calls `attempt` until it returns a value, and fails when `limit` has passed.
/// The limit also applies to a call that hangs.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use std::time::Duration;
/// use orders_testbed::wait_for;
/// let file = wait_for("the file", Duration::from_secs(5), || async {
///     std::fs::read("/tmp/file").ok()
/// }).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the limit has passed. The error contains `what` was expected.
pub async fn wait_for<T, F, Fut>(what: &str, limit: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() < deadline => sleep(POLL_INTERVAL).await,
            _ => bail!("{TIMED_OUT} {limit:?} waiting for {what}"),
        }
    }
}

/// Like [`wait_for`], but `attempt` returns the current state while there is no value yet. The
/// error contains the last state.
///
/// # Errors
/// If the limit has passed. The error contains `what` was expected and the last state.
pub async fn wait_until<T, F, Fut>(what: &str, limit: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + limit;
    let mut state = "no attempt finished".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(now)) => state = now,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            bail!("{TIMED_OUT} {limit:?} waiting for {what}; last state: {state}");
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The pause between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

const FIRST_PORT: u32 = 12_000;
const PORTS: u32 = 17_000;

/// Returns a TCP port of 127.0.0.1 on which no process listens. Within one process, it never returns
/// the same port twice. Its range is below the ports that Linux uses
/// for outgoing connections and that Kubernetes uses for node ports.
///
/// # Panics
/// If a thousand consecutive ports are in use.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(7919);
    for _ in 0..1000 {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST_PORT + offset.wrapping_add(next) % PORTS) as u16;
        if port_is_free(Ipv4Addr::LOCALHOST, port) {
            return port;
        }
    }
    panic!("no free TCP port between {FIRST_PORT} and {}", FIRST_PORT + PORTS);
}

/// Whether no process listens on this port, neither on this address nor on all addresses.
pub fn port_is_free(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wait_for_returns_the_value() {
        let mut calls = 0;
        let value = wait_for("three calls", Duration::from_secs(5), || {
            calls += 1;
            let calls = calls;
            async move { (calls == 3).then_some(calls) }
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn a_timeout_during_a_hanging_call_names_what_was_expected() {
        let error = wait_for("nothing", Duration::from_millis(20), std::future::pending::<Option<()>>).await.unwrap_err();
        assert!(error.to_string().contains("for nothing"), "{error}");
    }

    #[tokio::test]
    async fn a_timeout_contains_the_last_state() {
        let mut calls = 0;
        let error = wait_until::<(), _, _>("the end", Duration::from_millis(20), || {
            calls += 1;
            let state = format!("call {calls}");
            async move { Err(state) }
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("waiting for the end; last state: call "), "{error}");
    }

    #[test]
    fn ports_differ() {
        assert_ne!(free_port(), free_port());
    }
}
