//! Reads values from the Prometheus text format, without I/O.

/// The sum of a metric over its series with all these labels, each
/// given as `name="value"`. Zero if there is no such series: a counter appears with its first increment.
pub fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} "),
            // Without labels, the value follows the name directly; otherwise the name belongs to another metric.
            None => rest.strip_prefix(' ').map(|value| ("", value)),
        }
    });
    let meant = series.filter(|(own, _)| labels.iter().all(|label| has(own, label)));
    meant.filter_map(|(_, value)| value.split_whitespace().next()?.parse::<f64>().ok()).sum()
}

/// Whether a series has this label. A label's name begins after the end of another label:
/// `resource="x"` must not match in `subresource="x"`.
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
    fn a_metric_without_labels_is_parsed() {
        assert_eq!(sum(TEXT, "etcd_puts", &[]), 50.0);
    }
}
