//! The API server's clock. It stamps the creation of an order, from which the order's deadline counts, so
//! this machine's clock is not compared with it directly.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::{Client, client::Body};

use super::CALL_TIMEOUT;

/// How often the clocks are compared.
const INTERVAL: Duration = Duration::from_secs(60);

/// A smaller difference is not corrected: the server's time is known to a second.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// The difference between this machine's clock and the API server's.
#[derive(Debug, Default)]
pub struct ServerClock {
    /// In milliseconds.
    ahead: AtomicI64,
}

impl ServerClock {
    /// By how much this machine's clock is ahead of the API server's. Zero if the difference is small, or
    /// not known yet.
    pub fn ahead(&self) -> SignedDuration {
        SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    /// Compares the clocks once a minute. Never returns.
    pub async fn run(&self, client: &Client) {
        let mut tick = tokio::time::interval(INTERVAL);
        // The first tick is immediate, and the clocks were compared at the start.
        tick.tick().await;
        loop {
            tick.tick().await;
            self.compare(client).await;
        }
    }

    /// Compares the clocks now. If the API server does not respond, the difference stays as it is.
    pub async fn compare(&self, client: &Client) {
        let Some(ahead) = measure(client).await else { return };
        metrics::gauge!("orders_clock_ahead_seconds").set(ahead.as_secs_f64());
        let ahead = if ahead.abs() < TOLERANCE { SignedDuration::ZERO } else { ahead };
        if ahead != SignedDuration::ZERO {
            tracing::warn!(
                seconds = ahead.as_secs(),
                "this machine's clock is ahead of the API server's, or behind it; deadlines are corrected by the difference"
            );
        }
        self.ahead.store(ahead.as_millis().try_into().unwrap_or_default(), Ordering::Relaxed);
    }
}

async fn measure(client: &Client) -> Option<SignedDuration> {
    let request = http::Request::get("/version").body(Body::empty()).ok()?;
    let sent = Timestamp::now();
    let response = tokio::time::timeout(CALL_TIMEOUT, client.send(request)).await.ok()?.ok()?;
    let received = Timestamp::now();
    let date = response.headers().get(http::header::DATE)?.to_str().ok()?;
    ahead_of(date, sent, received)
}

/// By how much the local clock was ahead when the server sent this header `Date` (RFC 9110, 6.6.1), in
/// response to a request that was sent and answered at these local times.
fn ahead_of(date: &str, sent: Timestamp, received: Timestamp) -> Option<SignedDuration> {
    let server = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    // The header has whole seconds, so half a second has passed since on average.
    let server = server + SignedDuration::from_millis(500);
    let local = sent + received.duration_since(sent) / 2;
    Some(local.duration_since(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_that_of_the_middle_of_the_call_and_of_the_second() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let ahead = |date| ahead_of(date, at("2026-11-29T04:00:00Z"), at("2026-11-29T04:00:01Z"));
        assert_eq!(ahead("Sun, 29 Nov 2026 04:00:00 GMT"), Some(SignedDuration::ZERO));
        assert_eq!(ahead("Sun, 29 Nov 2026 03:59:00 GMT"), Some(SignedDuration::from_secs(60)));
        assert_eq!(ahead("Sun, 29 Nov 2026 04:00:10 GMT"), Some(SignedDuration::from_secs(-10)));
        for bad in ["", "yesterday", "2026-11-29T04:00:00Z"] {
            assert_eq!(ahead(bad), None, "{bad}");
        }
    }
}
