//! Merges the histories of all revisions of an order. The status contains only the first entry and
//! the latest fifteen entries, so the archive adds the entries of earlier revisions that a later
//! revision has dropped.

use std::collections::HashSet;

use jiff::Timestamp;
use orders_crds::HistoryEntry;
use serde_json::Value;

use crate::entry::MAX_RESOURCE;

/// The maximum number of history entries of an order. Beyond this number, or if the order would
/// become larger than [`MAX_RESOURCE`], the oldest entries after the first are dropped.
pub const MAX_ENTRIES: usize = 500;

/// The identity of an entry. Two entries with the same key are the same entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    time: Timestamp,
    action: String,
    reason: String,
    message: String,
}

/// An entry of a history, including the fields that this version does not know.
#[derive(Clone, Debug)]
struct Item {
    key: Key,
    json: Value,
}

/// Returns the newer of two revisions of an order, as JSON, with the entries of both histories.
/// Below the limits, the result contains the same entries regardless of the order in which the
/// revisions arrive.
pub fn merge(newer: &str, older: &str) -> String {
    let merged = || {
        let mut resource: Value = serde_json::from_str(newer).ok()?;
        let (new, old) = (items(&resource)?, items(&serde_json::from_str(older).ok()?)?);
        if old.is_empty() {
            return None;
        }
        let all = union(&old, &new).into_iter().map(|item| item.json).collect();
        let status = resource.get_mut("status")?.as_object_mut()?;
        status.insert("history".to_owned(), Value::Array(Vec::new()));
        let max_bytes = MAX_RESOURCE.saturating_sub(resource.to_string().len());
        resource["status"]["history"] = Value::Array(truncate(all, max_bytes));
        Some(resource.to_string())
    };
    merged().unwrap_or_else(|| newer.to_owned())
}

/// Returns the history entries of a resource that was already read as an order.
fn items(resource: &Value) -> Option<Vec<Item>> {
    let Some(history) = resource.pointer("/status/history") else { return Some(Vec::new()) };
    let read = |json: &Value| {
        let HistoryEntry { time, action, reason, message } = serde_json::from_value(json.clone()).ok()?;
        Some(Item { key: Key { time: time.0, action, reason, message }, json: json.clone() })
    };
    history.as_array()?.iter().map(read).collect()
}

/// Returns the entries of both histories, each once, sorted by time. Entries with the same time
/// stay in the order of their histories, as far as the two histories agree on that order.
fn union(older: &[Item], newer: &[Item]) -> Vec<Item> {
    let keys = |items: &[Item]| items.iter().map(|item| item.key.clone()).collect::<HashSet<Key>>();
    let (in_older, in_newer) = (keys(older), keys(newer));
    let (mut older, mut newer) = (older.iter().peekable(), newer.iter().peekable());
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    loop {
        let next = match (older.peek(), newer.peek()) {
            (None, None) => break,
            (Some(_), None) => older.next(),
            (None, Some(_)) => newer.next(),
            (Some(old), Some(new)) => {
                // An entry that the other history also contains waits until that history reaches
                // it.
                let old_waits = in_newer.contains(&old.key) && !seen.contains(&old.key);
                let new_waits = in_older.contains(&new.key) && !seen.contains(&new.key);
                let next_is_new = match (old_waits, new_waits) {
                    (true, false) => true,
                    (false, true) | (true, true) => false,
                    (false, false) => new.key.time < old.key.time,
                };
                if next_is_new { newer.next() } else { older.next() }
            }
        };
        if let Some(item) = next
            && seen.insert(item.key.clone())
        {
            all.push(item.clone());
        }
    }
    // The sort is needed because the clocks of two operators may differ.
    all.sort_by_key(|item| item.key.time);
    all
}

/// Returns the first entry and the latest entries: at most [`MAX_ENTRIES`], with at most `max_bytes`
/// bytes of JSON.
fn truncate(mut entries: Vec<Value>, max_bytes: usize) -> Vec<Value> {
    // Each entry except the last has a comma.
    let size = |entry: &Value| entry.to_string().len() + 1;
    let mut bytes = entries.iter().map(size).sum::<usize>().saturating_sub(1);
    let mut latest_start = 1;
    while entries.len() > latest_start && (entries.len() - latest_start + 1 > MAX_ENTRIES || bytes > max_bytes) {
        bytes -= size(&entries[latest_start]);
        latest_start += 1;
    }
    entries.drain(1.min(entries.len())..latest_start.min(entries.len()));
    entries
}

#[cfg(test)]
mod tests {
    use orders_crds::{OrderStatus, order::MAX_HISTORY};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry(number: i64, second: i64, text: &str) -> Value {
        let time = Timestamp::from_second(1_700_000_000 + second).unwrap().to_string();
        json!({"time": time, "action": "Charge", "reason": "Paid", "message": format!("{number} {text}")})
    }

    fn resource(revision: i64, history: &[Value]) -> String {
        json!({"metadata": {"resourceVersion": revision.to_string()}, "status": {"attempt": revision, "history": history}})
            .to_string()
    }

    fn history(resource: &str) -> Vec<Value> {
        let resource: Value = serde_json::from_str(resource).unwrap();
        resource["status"]["history"].as_array().cloned().unwrap_or_default()
    }

    /// Returns all entries, three per second, and the revision of the resource after each entry.
    fn revisions(length: i64) -> (Vec<Value>, Vec<String>) {
        let mut status = OrderStatus::default();
        let (mut all, mut revisions) = (Vec::new(), Vec::new());
        for number in 0..length {
            all.push(entry(number, number / 3, ""));
            status.push_history(serde_json::from_value(entry(number, number / 3, "")).unwrap());
            let stored: Vec<Value> = status.history.iter().map(|entry| serde_json::to_value(entry).unwrap()).collect();
            revisions.push(resource(number, &stored));
        }
        (all, revisions)
    }

    #[test]
    fn the_newer_revision_is_stored_with_the_history_entries_that_it_dropped() {
        let (all, revisions) = revisions(40);
        let merged = revisions[1..].iter().fold(revisions[0].clone(), |stored, revision| merge(revision, &stored));
        assert!(history(&revisions[39]).len() == MAX_HISTORY && all.len() == 40);
        assert_eq!(history(&merged), all);
        let merged: Value = serde_json::from_str(&merged).unwrap();
        assert_eq!((&merged["metadata"]["resourceVersion"], &merged["status"]["attempt"]), (&json!("39"), &json!(39)));
    }

    #[test]
    fn a_repeated_merge_changes_nothing_and_a_revision_without_a_history_adds_nothing() {
        let (_, revisions) = revisions(20);
        let merged = merge(&revisions[19], &revisions[3]);
        assert_eq!(merge(&merged, &revisions[19]), merged);
        assert_eq!(merge(&merged, &merged), merged);
        let bare = r#"{"status": {}}"#;
        assert_eq!(merge(bare, bare), bare);
        assert_eq!(merge(&revisions[5], bare), revisions[5]);
        assert_eq!(history(&merge(bare, &revisions[5])), history(&revisions[5]));
    }

    #[test]
    fn entries_that_differ_in_a_known_field_are_distinct_and_unknown_fields_are_preserved() {
        let base = entry(1, 1, "");
        let with = |field: &str, value: &str| {
            let mut other = base.clone();
            other[field] = json!(value);
            other
        };
        let mut others = vec![with("action", "Refund"), with("reason", "Refunded"), with("message", "another")];
        others.push(with("time", "2024-01-01T00:00:00Z"));
        for other in others {
            let merged = merge(&resource(2, std::slice::from_ref(&other)), &resource(1, std::slice::from_ref(&base)));
            assert_eq!(history(&merged), [base.clone(), other]);
        }
        // This is the same time in another notation.
        let same = with("time", "2023-11-14T22:13:21.000+00:00");
        assert_eq!(history(&merge(&resource(2, &[same]), &resource(1, std::slice::from_ref(&base)))).len(), 1);
        let with_unknown_field = with("sinceThen", "7");
        assert_eq!(
            history(&merge(&resource(2, &[]), &resource(1, std::slice::from_ref(&with_unknown_field)))),
            [with_unknown_field]
        );
    }

    #[test]
    fn the_oldest_entries_after_the_first_are_dropped() {
        let all: Vec<Value> = (0..700).map(|number| entry(number, number, "")).collect();
        let stored = history(&merge(&resource(2, &all[690..]), &resource(1, &all[..690])));
        let (first, latest) = (&all[..1], &all[700 - stored.len() + 1..]);
        assert_eq!(stored, [first, latest].concat());

        let short =
            |number: i64| json!({"time": "2023-11-14T22:13:21Z", "action": "", "reason": "", "message": number.to_string()});
        let all: Vec<Value> = (0..600).map(short).collect();
        let stored = history(&merge(&resource(2, &all[590..]), &resource(1, &all[..590])));
        assert_eq!(stored, [&all[..1], &all[101..]].concat());
        assert_eq!(stored.len(), MAX_ENTRIES);
    }

    #[test]
    fn no_order_exceeds_the_maximum_size() {
        let large = |range: std::ops::Range<i64>| range.map(|number| entry(number, number, &"x".repeat(400))).collect::<Vec<_>>();
        let merged = merge(&resource(2, &large(100..200)), &resource(1, &large(0..100)));
        assert!((MAX_RESOURCE - 1000..=MAX_RESOURCE).contains(&merged.len()), "{}", merged.len());
        assert_eq!(
            (history(&merged)[0].clone(), history(&merged).last().cloned()),
            (large(0..1)[0].clone(), large(199..200).pop())
        );
        // This order has the maximum size without any of the merged entries.
        let mut full: Value = serde_json::from_str(&resource(3, &large(200..201))).unwrap();
        full["spec"] = json!("x".repeat(MAX_RESOURCE - full.to_string().len() - ",\"spec\":\"\"".len()));
        let full = full.to_string();
        assert_eq!(full.len(), MAX_RESOURCE);
        assert!(merge(&full, &merged).len() <= MAX_RESOURCE);
    }

    proptest! {
        #[test]
        fn the_entries_of_all_revisions_are_stored_once_sorted_by_time_in_any_order_of_arrival(
            length in 1..60_usize,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let (all, revisions) = revisions(length as i64);
            let picks: Vec<usize> = picks.iter().map(|pick| pick.index(length)).collect();
            let (mut stored, mut newest) = (revisions[picks[0]].clone(), picks[0]);
            for pick in &picks[1..] {
                stored = if *pick > newest { merge(&revisions[*pick], &stored) } else { merge(&stored, &revisions[*pick]) };
                newest = newest.max(*pick);
            }
            let sent: Vec<Value> = picks.iter().flat_map(|pick| history(&revisions[*pick])).collect();
            let stored = history(&stored);
            let sorted_texts = |entries: &[Value]| {
                let mut texts: Vec<String> = entries.iter().map(Value::to_string).collect();
                texts.sort_unstable();
                texts.dedup();
                texts
            };
            prop_assert_eq!(sorted_texts(&stored), sorted_texts(&sent), "all entries");
            prop_assert_eq!(stored.len(), sorted_texts(&sent).len(), "each once");
            prop_assert!(stored.is_sorted_by_key(|entry| entry["time"].to_string()));
            // If the revisions arrive in their order, the entries are in the order in which the
            // events happened.
            if picks.is_sorted() {
                let in_order: Vec<&Value> = all.iter().filter(|entry| sent.contains(entry)).collect();
                prop_assert_eq!(stored.iter().collect::<Vec<_>>(), in_order);
            }
        }
    }
}
