//! Prometheus text: pure.

/// The sum of a metric over those of its series that have all these labels, each
/// given as `name="value"`. Zero if there is none: counters appear when they first count.
pub fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} "),
            // Without labels the value follows at once; anything else is another metric's name.
            None => rest.strip_prefix(' ').map(|value| ("", value)),
        }
    });
    let meant = series.filter(|(own, _)| labels.iter().all(|label| has(own, label)));
    meant.filter_map(|(_, value)| value.split_whitespace().next()?.parse::<f64>().ok()).sum()
}

/// Whether a series has this label. The name begins where another label ends:
/// `resource="x"` must not be found in `subresource="x"`.
fn has(labels: &str, label: &str) -> bool {
    labels.match_indices(label).any(|(at, _)| at == 0 || labels.as_bytes()[at - 1] == b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE requests_total counter\n\
        requests_total{verb=\"POST\",resource=\"orders\",subresource=\"\"} 3\n\
        requests_total{verb=\"PATCH\",resource=\"orders\",subresource=\"status\"} 4\n\
        requests_total{verb=\"POST\",resource=\"x\",subresource=\"orders\"} 1000\n\
        requests_total_more{verb=\"POST\",resource=\"orders\"} 100\n\
        etcd_puts 5e1\n\
        etcd_puts_more 7\n";

    #[test]
    fn series_are_summed_by_their_labels() {
        assert_eq!(sum(TEXT, "requests_total", &["resource=\"orders\""]), 7.0);
        assert_eq!(sum(TEXT, "requests_total", &["resource=\"orders\"", "verb=\"PATCH\""]), 4.0);
        assert_eq!(sum(TEXT, "requests_total", &["verb=\"DELETE\""]), 0.0);
    }

    #[test]
    fn a_metric_without_labels_is_read_too() {
        assert_eq!(sum(TEXT, "etcd_puts", &[]), 50.0);
    }
}
