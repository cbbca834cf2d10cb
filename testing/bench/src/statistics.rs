//! Medians and percentiles, without I/O.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is recorded, in microseconds. Longer times count as this one.
const LONGEST: u64 = 120_000_000;

/// A histogram of durations.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // Three significant digits are a precision of a thousandth. The bounds are valid, so this cannot fail.
        Times(Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds of the histogram"))
    }
}

impl Times {
    /// Adds a duration.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
    }

    /// Adds the durations of another histogram.
    pub fn add(&mut self, other: &Times) {
        // Both have the same bounds, so this cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that this share of all durations does not exceed, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }
}

/// The median; `None` without values. Of an even number of values, it is the mean of the middle two.
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

/// The minimum and the maximum; `None` without values.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let greatest = values.iter().copied().max_by(f64::total_cmp)?;
    Some((least, greatest))
}

/// Formats a number with three significant digits, and no more decimal places than these need.
pub fn number(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
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
