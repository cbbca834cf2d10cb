//! Formats ages as kubectl does.

use jiff::SignedDuration;

/// Formats an age as kubectl does: the older, the coarser.
pub fn format_age(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        // The local clock is slightly behind.
        -1 => "0s".to_owned(),
        _ if minutes < 2 => format!("{seconds}s"),
        _ if minutes < 10 => format_units(minutes, "m", seconds % 60, "s"),
        _ if hours < 3 => format!("{minutes}m"),
        _ if hours < 8 => format_units(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => format_units(days, "d", hours % 24, "h"),
        _ if days < 2 * 365 => format!("{days}d"),
        _ if days < 8 * 365 => format_units(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn format_units(large: i64, unit: &str, small: i64, smaller_unit: &str) -> String {
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{smaller_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_formatted_as_by_kubectl() {
        let (minute, hour, day) = (60, 3600, 86_400);
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (5, "5s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (200, "3m20s"),
            (10 * minute + 1, "10m"),
            (3 * hour - 1, "179m"),
            (3 * hour, "3h"),
            (3 * hour + minute, "3h1m"),
            (8 * hour + minute, "8h"),
            (48 * hour - 1, "47h"),
            (2 * day, "2d"),
            (2 * day + 5 * hour, "2d5h"),
            (8 * day + 5 * hour, "8d"),
            (2 * 365 * day, "2y"),
            (2 * 365 * day + 3 * day, "2y3d"),
            (9 * 365 * day + 3 * day, "9y"),
        ] {
            assert_eq!(format_age(SignedDuration::from_secs(seconds)), expected, "{seconds} seconds");
        }
    }
}
