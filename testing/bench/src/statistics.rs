//! Medians and percentiles: pure.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told apart, in microseconds: longer ones count as this.
const LONGEST: u64 = 120_000_000;

/// How long things took.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // Three significant digits: a thousandth of the value. The bounds are right, so this cannot fail.
        Times(Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds of the histogram"))
    }
}

impl Times {
    /// Adds one.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Times) {
        // Both have the same bounds, so this cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What this share of them does not exceed, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }
}

/// The one in the middle, or the mean of the two there; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The least and the greatest; `None` of nothing.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let greatest = values.iter().copied().max_by(f64::total_cmp)?;
    Some((least, greatest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let (mut times, mut slow) = (Times::default(), Times::default());
        (1..=99).for_each(|_| times.record(Duration::from_millis(2)));
        slow.record(Duration::from_secs(1000));
        times.add(&slow);
        assert_eq!(times.count(), 100);
        assert!((times.percentile(0.5) - 2.0).abs() < 0.01);
        assert!((times.percentile(0.99) - 2.0).abs() < 0.01, "ninety-nine of a hundred");
        assert!(times.percentile(0.999) > 119_000.0, "the longest counts as two minutes, not as nothing");
    }
}
