//! Tests on both databases that the archive stores the whole history of an order, in whichever order
//! its revisions arrive.

use crate::support::{Sample, find_stored, history_numbers, on_both_databases, retry_while_unavailable};
use anyhow::Result;
use orders_archive::{entry::MAX_RESOURCE, listing::Listing, store::Store};
use serde_json::Value;

/// Returns the revision after this number of history entries. Its status has the first entry and the
/// latest fifteen.
fn revision(entries: i64) -> Sample {
    let latest = (entries - 15).max(1);
    Sample { revision: entries, history: (0..1).chain(latest..entries).collect(), ..Sample::new("a") }
}

async fn history(store: &Store) -> Result<Vec<i64>> {
    Ok(history_numbers(&find_stored(store, "a").await?.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_a_newer_revision_dropped_stay_and_every_query_returns_them() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        for entries in [16, 20, 30] {
            assert_eq!(store.put(&revision(entries).entry()).await?, entries);
        }
        let stored = find_stored(&store, "a").await?.unwrap_or_default();
        assert_eq!(history_numbers(&stored), (0..30).collect::<Vec<_>>());
        assert_eq!(stored["metadata"]["resourceVersion"], "30");
        let text = store.find("a").await?.unwrap_or_default();
        assert_eq!(store.find_named("shop", "order-a").await?.as_ref(), Some(&text));
        assert_eq!(store.page(&Listing::of("shop")).await?.resources, std::slice::from_ref(&text));
        let mut row = store.export("", 10).await?.remove(0);
        assert_eq!((row.entry.revision, &row.entry.resource), (30, &text));

        // A revision that is sent again changes nothing.
        for entries in [30, 16, 20, 30] {
            assert_eq!(store.put(&revision(entries).entry()).await?, 30);
        }
        let repeated = store.export("", 10).await?.remove(0);
        assert_eq!(repeated, row);
        // An older revision that arrives late changes only the history.
        let late = Sample { history: vec![-3], state: "Refunded", login: "berta".into(), ..revision(5) };
        assert_eq!(store.put(&late.entry()).await?, 30);
        assert_eq!(history(&store).await?, std::iter::once(-3).chain(0..30).collect::<Vec<_>>());
        row.entry.resource = store.find("a").await?.unwrap_or_default();
        assert_eq!(store.export("", 10).await?, [row]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_revisions_of_an_order_in_a_batch_are_merged() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        store.put_all(&[revision(30).entry(), revision(16).entry(), revision(20).entry(), revision(16).entry()]).await?;
        assert_eq!(history(&store).await?, (0..30).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entry_of_concurrent_revisions_is_lost() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        // Each revision has its own entry, so that an overwritten revision is detected.
        let one = |number: i64| Sample { revision: number + 1, history: vec![number], ..Sample::new("a") }.entry();
        let puts = (0..40).map(|number| {
            let store = store.clone();
            tokio::spawn(retry_while_unavailable(move || {
                let store = store.clone();
                async move {
                    if number % 2 == 0 { store.put(&one(number)).await.map(drop) } else { store.put_all(&[one(number)]).await }
                }
            }))
        });
        for put in puts.collect::<Vec<_>>() {
            put.await??;
        }
        assert_eq!(history(&store).await?, (0..40).collect::<Vec<_>>());
        assert_eq!(store.export("", 10).await?[0].entry.revision, 40);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_the_longest_history_does_not_exceed_the_maximum_size() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        for entries in (16..2000).step_by(15) {
            store.put(&revision(entries).entry()).await?;
        }
        let text = store.find("a").await?.unwrap_or_default();
        assert!(text.len() <= MAX_RESOURCE);
        let stored = history_numbers(&serde_json::from_str::<Value>(&text)?);
        assert_eq!(stored[0], 0, "the first entry");
        assert!(stored.len() > 400 && stored[1..].iter().copied().eq(1997 - stored.len() as i64..1996), "{stored:?}");
        Ok(())
    })
    .await
}
