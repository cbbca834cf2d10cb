//! An order's history is kept as a whole, on both databases, whichever versions of it come when.

use crate::support::{Sample, kept, numbers, on_both, surely};
use anyhow::Result;
use orders_archive::{entry::MAX_RESOURCE, listing::Listing, store::Store};
use serde_json::Value;

/// The version after so many entries, as a status keeps them: the first and the latest fifteen.
fn version(entries: i64) -> Sample {
    let latest = (entries - 15).max(1);
    Sample { revision: entries, history: (0..1).chain(latest..entries).collect(), ..Sample::new("a") }
}

async fn history(store: &Store) -> Result<Vec<i64>> {
    Ok(numbers(&kept(store, "a").await?.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_dropped_stays_and_all_who_read_see_it() -> Result<()> {
    on_both(|database| async move {
        let store = Store::new(database);
        for entries in [16, 20, 30] {
            assert_eq!(store.put(&version(entries).entry()).await?, entries);
        }
        let whole = kept(&store, "a").await?.unwrap_or_default();
        assert_eq!(numbers(&whole), (0..30).collect::<Vec<_>>());
        assert_eq!(whole["metadata"]["resourceVersion"], "30");
        let text = store.find("a").await?.unwrap_or_default();
        assert_eq!(store.find_named("shop", "order-a").await?.as_ref(), Some(&text));
        assert_eq!(store.page(&Listing::of("shop")).await?.resources, std::slice::from_ref(&text));
        let mut row = store.export("", 10).await?.remove(0);
        assert_eq!((row.entry.revision, &row.entry.resource), (30, &text));

        // What was sent once, sent again, changes nothing.
        for entries in [30, 16, 20, 30] {
            assert_eq!(store.put(&version(entries).entry()).await?, 30);
        }
        let again = store.export("", 10).await?.remove(0);
        assert_eq!(again, row);
        // What a late one brings beside changes the history and nothing else.
        let late = Sample { history: vec![-3], state: "Refunded", login: "berta".into(), ..version(5) };
        assert_eq!(store.put(&late.entry()).await?, 30);
        assert_eq!(history(&store).await?, std::iter::once(-3).chain(0..30).collect::<Vec<_>>());
        row.entry.resource = store.find("a").await?.unwrap_or_default();
        assert_eq!(store.export("", 10).await?, [row]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_all_versions_of_an_order_are_merged() -> Result<()> {
    on_both(|database| async move {
        let store = Store::new(database);
        store.put_all(&[version(30).entry(), version(16).entry(), version(20).entry(), version(16).entry()]).await?;
        assert_eq!(history(&store).await?, (0..30).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_versions_that_come_at_once_none_is_lost() -> Result<()> {
    on_both(|database| async move {
        let store = Store::new(database);
        // Each has entries of its own, so that one that another overwrites is missed.
        let one = |number: i64| Sample { revision: number + 1, history: vec![number], ..Sample::new("a") }.entry();
        let puts = (0..40).map(|number| {
            let store = store.clone();
            tokio::spawn(surely(move || {
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
async fn an_order_with_the_longest_history_is_no_larger_than_one_may_be() -> Result<()> {
    on_both(|database| async move {
        let store = Store::new(database);
        for entries in (16..2000).step_by(15) {
            store.put(&version(entries).entry()).await?;
        }
        let text = store.find("a").await?.unwrap_or_default();
        assert!(text.len() <= MAX_RESOURCE);
        let kept = numbers(&serde_json::from_str::<Value>(&text)?);
        assert_eq!(kept[0], 0, "the first");
        assert!(kept.len() > 400 && kept[1..].iter().copied().eq(1997 - kept.len() as i64..1996), "{kept:?}");
        Ok(())
    })
    .await
}
