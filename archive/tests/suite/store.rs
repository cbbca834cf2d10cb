//! Tests of the store on both databases: which orders it stores, and how they are found.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::support::{Sample, find_stored, on_both_databases};
use anyhow::Result;
use orders_archive::{
    listing::{Cursor, Listing},
    store::{Archived, EXPORT_BYTES, MIGRATIONS, NEWEST_OF_NAME, Store, listing_sql},
};
use orders_crds::Login;
use orders_service::database::{Database, Kind, Timeouts};
use orders_testbed::{Postgres, WAIT_TIMEOUT};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;
use sqlx::{Any, AssertSqlSafe, Row, any::AnyArguments, query::Query};

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_revision_stays_in_whichever_order_the_revisions_arrive() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        // Revisions are compared as numbers: as text, 9 would be larger than 10.
        let ninth = Sample { revision: 9, ..Sample::new("a") };
        let tenth = Sample {
            revision: 10,
            namespace: "elsewhere".into(),
            name: "another".into(),
            login: "berta".into(),
            state: "Refunded",
            created_second: 5,
            ..ninth.clone()
        };
        assert_eq!(store.put(&ninth.entry()).await?, 9);
        assert_eq!(store.put(&ninth.entry()).await?, 9, "a repeat");
        let twin = Sample { login: "berta".into(), ..ninth.clone() };
        assert_eq!(store.put(&twin.entry()).await?, 9, "the same revision is the same order");
        assert_eq!(find_stored(&store, "a").await?, Some(ninth.resource()));
        assert_eq!(store.put(&tenth.entry()).await?, 10);
        assert_eq!(store.put(&ninth.entry()).await?, 10, "an older revision that arrives late");
        store.put_all(&[tenth.entry(), ninth.entry()]).await?;
        assert_eq!(find_stored(&store, "a").await?, Some(tenth.resource()));
        let rows = store.export("", 10).await?;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].entry, tenth.entry(), "all columns are those of the same revision");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_as_a_whole_or_not_at_all() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database.clone());
        let batch: Vec<_> = ["c", "a", "b"].map(|uid| Sample::new(uid).entry()).into();
        store.put_all(&batch).await?;
        store.put_all(&[]).await?;
        assert_eq!(store.export("", 10).await?.len(), 3);

        // The database refuses the last row of this batch.
        let forbid = match database.kind {
            Kind::Sqlite => {
                "CREATE TRIGGER forbid BEFORE INSERT ON orders WHEN NEW.uid = 'z' BEGIN SELECT RAISE(ABORT, 'no'); END"
            }
            Kind::Postgres => "ALTER TABLE orders ADD CONSTRAINT forbid CHECK (uid <> 'z')",
        };
        sqlx::query(forbid).execute(&database.pool).await?;
        let batch: Vec<_> = ["d", "z", "e"].map(|uid| Sample::new(uid).entry()).into();
        assert!(store.put_all(&batch).await.is_err());
        assert_eq!((find_stored(&store, "d").await?, find_stored(&store, "e").await?), (None, None));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_with_the_same_orders_do_not_deadlock() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        let forward: Vec<_> = (0..200).map(|number| Sample::new(&format!("u{number:03}")).entry()).collect();
        for revision in 2..12 {
            let mut one = forward.clone();
            one.iter_mut().for_each(|entry| entry.revision = revision);
            let mut other = one.clone();
            other.reverse();
            let (one, other) = tokio::join!(store.put_all(&one), store.put_all(&other));
            one?;
            other?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_order_with_a_name_is_found() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        let named = |uid: &str, created_second, namespace: &str| Sample {
            name: "weekly".into(),
            namespace: namespace.into(),
            created_second,
            ..Sample::new(uid)
        };
        for order in [named("b", 5, "shop"), named("a", 9, "shop"), named("c", 7, "shop"), named("d", 11, "elsewhere")] {
            store.put(&order.entry()).await?;
        }
        let found = store.find_named("shop", "weekly").await?.unwrap_or_default();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&found)?, named("a", 9, "shop").resource());
        for (namespace, name) in [("shop", "monthly"), ("nowhere", "weekly"), ("shop", ""), ("shop", "a\0")] {
            assert_eq!(store.find_named(namespace, name).await?, None, "{namespace:?} {name:?}");
        }
        for uid in ["", "z", "a\0"] {
            assert_eq!(store.find(uid).await?, None, "{uid:?}");
        }
        Ok(())
    })
    .await
}

/// Asserts that UIDs are sorted by their bytes. In a linguistic collation, upper case and lower case
/// are mixed, and hyphens are ignored.
async fn assert_exported_in_byte_order(database: Database) -> Result<()> {
    let store = Store::new(database);
    let uids = ["0-1", "00", "A", "Z-9", "a", "b", "b-0"];
    let entries: Vec<_> = uids.iter().rev().map(|uid| Sample::new(uid).entry()).collect();
    store.put_all(&entries).await?;
    let (mut exported, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.export(&after, 2).await?;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after.clone_from(&last.entry.uid);
        exported.extend(page);
    }
    let exported: Vec<&str> = exported.iter().map(|archived: &Archived| &*archived.entry.uid).collect();
    assert_eq!(exported, uids);
    let listed = store.page(&Listing::of("shop")).await?.resources;
    let names = entries.iter().map(|entry| &entry.resource);
    assert!(listed.iter().eq(names), "orders with the same creation time: by UID, largest first");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_has_each_order_once_and_ends_with_an_empty_page() -> Result<()> {
    on_both_databases(assert_exported_in_byte_order).await
}

#[tokio::test(flavor = "multi_thread")]
async fn uids_are_sorted_by_their_bytes_in_a_database_with_a_linguistic_collation() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    postgres.query("CREATE DATABASE linguistic TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")?;
    let url = postgres.url();
    let (server, _) = url.rsplit_once('/').expect("a URL");
    assert_exported_in_byte_order(
        Database::open_with_timeouts(&format!("{server}/linguistic"), 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_export_has_fewer_orders_if_they_are_large() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        let large = |uid: &str| {
            let mut resource = Sample::new(uid).resource();
            resource["metadata"]["annotations"] = json!({"note": "x".repeat(60 * 1024)});
            orders_archive::entry::Entry::from_resource(resource).expect("an order")
        };
        let entries: Vec<_> = (0..100).map(|number| large(&format!("u{number:02}"))).collect();
        store.put_all(&entries).await?;
        let first = store.export("", 1000).await?;
        let bytes: usize = first.iter().map(|archived| archived.entry.resource.len()).sum();
        assert!((EXPORT_BYTES..EXPORT_BYTES + 64 * 1024).contains(&bytes), "{bytes}");
        let rest = store.export(&first[first.len() - 1].entry.uid, 1000).await?;
        assert_eq!(first.len() + rest.len(), 100);
        Ok(())
    })
    .await
}

/// A random order. The ranges are small, so that orders have values in common.
#[derive(Clone, Debug)]
struct RandomOrder {
    spread: u8,
    second: i64,
    login: u8,
    refused: bool,
}

/// A random listing. The orders `initial` exist at the start. One of the orders `added` is added after
/// each page.
#[derive(Clone, Debug)]
struct RandomListing {
    initial: Vec<RandomOrder>,
    added: Vec<RandomOrder>,
    login: Option<u8>,
    refused: Option<bool>,
    from: Option<i64>,
    to: Option<i64>,
    limit: u16,
}

const STATES: [&str; 2] = ["Paid", "InsufficientFunds"];

fn random_listings() -> impl Strategy<Value = RandomListing> {
    let order = || {
        let parts = (any::<u8>(), 0..4_i64, 0..2_u8, any::<bool>());
        parts.prop_map(|(spread, second, login, refused)| RandomOrder { spread, second, login, refused })
    };
    (
        prop::collection::vec(order(), 0..25),
        prop::collection::vec(order(), 0..10),
        prop::option::of(0..2_u8),
        prop::option::of(any::<bool>()),
        prop::option::of(0..4_i64),
        prop::option::of(0..5_i64),
        1..6_u16,
    )
        .prop_map(|(initial, added, login, refused, from, to, limit)| RandomListing {
            initial,
            added,
            login,
            refused,
            from,
            to,
            limit,
        })
}

impl RandomListing {
    fn to_listing(&self, namespace: &str) -> Listing {
        Listing {
            login: self.login.and_then(|login| Login::try_from(format!("login{login}")).ok()),
            state: self.refused.map(|refused| STATES[usize::from(refused)].to_owned()),
            from: self.from.map(|second| second * 1_000_000),
            to: self.to.map(|second| second * 1_000_000),
            limit: self.limit,
            ..Listing::of(namespace)
        }
    }

    /// Whether the listing contains this order.
    fn contains(&self, sample: &Sample) -> bool {
        self.login.is_none_or(|login| sample.login == format!("login{login}"))
            && self.refused.is_none_or(|refused| sample.state == STATES[usize::from(refused)])
            && self.from.is_none_or(|from| sample.created_second >= from)
            && self.to.is_none_or(|to| sample.created_second < to)
    }
}

fn samples(orders: &[RandomOrder], namespace: &str, kind: &str) -> Vec<Sample> {
    let sample = |(number, order): (usize, &RandomOrder)| Sample {
        namespace: namespace.to_owned(),
        login: format!("login{}", order.login),
        state: STATES[usize::from(order.refused)],
        created_second: order.second,
        ..Sample::new(&format!("{:03}-{namespace}-{kind}{number}", order.spread))
    };
    orders.iter().enumerate().map(sample).collect()
}

fn cursor_of(sample: &Sample) -> Cursor {
    Cursor { created_at: sample.created_second * 1_000_000, uid: sample.uid.clone() }
}

/// Reads all pages. After each page, one of the orders `added` is added, and one of the orders
/// `initial` is replaced.
async fn read_all_pages(store: &Store, random: &RandomListing, namespace: &str) -> Result<(), TestCaseError> {
    let fail = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
    let (initial, added) = (samples(&random.initial, namespace, "i"), samples(&random.added, namespace, "a"));
    for order in &initial {
        store.put(&order.entry()).await.map_err(|error| fail(&error))?;
    }
    let mut listing = random.to_listing(namespace);
    let (mut listed, mut to_add) = (Vec::new(), added.iter());
    loop {
        let page = store.page(&listing).await.map_err(|error| fail(&error))?;
        prop_assert!(page.resources.len() <= usize::from(random.limit));
        for resource in &page.resources {
            let resource: serde_json::Value = serde_json::from_str(resource).map_err(|error| fail(&error))?;
            listed.push(resource["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        }
        prop_assert!(
            page.next.is_none() || page.resources.len() == usize::from(random.limit),
            "each page except the last is full"
        );
        let Some(next) = page.next else { break };
        prop_assert!(listed.len() <= initial.len() + added.len(), "the listing does not end");
        // The cursor in the form that a caller receives.
        listing.before = next.to_string().try_into().ok();
        for order in
            to_add.next().into_iter().cloned().chain(initial.first().cloned().map(|order| Sample { revision: 2, ..order }))
        {
            store.put(&order.entry()).await.map_err(|error| fail(&error))?;
        }
    }
    let mut expected: Vec<Cursor> = initial.iter().filter(|order| random.contains(order)).map(cursor_of).collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let listed_initial: Vec<&String> = listed.iter().filter(|uid| initial.iter().any(|order| order.uid == **uid)).collect();
    prop_assert_eq!(listed_initial, expected.iter().map(|cursor| &cursor.uid).collect::<Vec<_>>(), "each once, newest first");

    let all: Vec<&Sample> = initial.iter().chain(&added).collect();
    let cursors: Vec<Cursor> =
        listed.iter().filter_map(|uid| all.iter().find(|order| order.uid == *uid)).map(|order| cursor_of(order)).collect();
    prop_assert_eq!(cursors.len(), listed.len(), "only orders that were stored");
    prop_assert!(cursors.is_sorted_by(|a, b| a > b), "{:?}", cursors);
    for uid in &listed {
        prop_assert!(all.iter().any(|order| order.uid == *uid && random.contains(order)), "{} does not match the filters", uid);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_list_each_order_once_newest_first_while_orders_are_added_and_replaced() -> Result<()> {
    let runtime = tokio::runtime::Handle::current();
    on_both_databases(|database| {
        let runtime = runtime.clone();
        async move {
            let store = Store::new(database);
            tokio::task::spawn_blocking(move || {
                let mut runner =
                    TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() });
                let cases = AtomicU32::new(0);
                runner.run(&random_listings(), |random| {
                    let namespace = format!("case{}", cases.fetch_add(1, Ordering::Relaxed));
                    runtime.block_on(read_all_pages(&store, &random, &namespace))
                })
            })
            .await??;
            Ok(())
        }
    })
    .await
}

/// Returns the database's plan of a statement. Asserts that the plan does not read all rows.
async fn plan(database: &Database, sql: &str, bind: impl FnOnce(Statement<'_>) -> Statement<'_>) -> Result<String> {
    let explain = match database.kind {
        Kind::Sqlite => "EXPLAIN QUERY PLAN",
        Kind::Postgres => "EXPLAIN",
    };
    let sql = format!("{explain} {sql}");
    let rows = bind(sqlx::query(AssertSqlSafe(sql.clone()))).fetch_all(&database.pool).await?;
    let lines = rows.iter().map(|row| row.try_get::<String, _>(row.len() - 1)).collect::<Result<Vec<_>, _>>()?;
    let plan = lines.join("\n");
    // SQLite reads all rows in a "SCAN".
    for slow in ["SCAN", "Seq Scan", "Bitmap"] {
        assert!(!plan.contains(slow), "{sql}:\n{plan}");
    }
    Ok(plan)
}

/// Whether the plan sorts rows. SQLite sorts with a "TEMP B-TREE".
fn sorts(plan: &str) -> bool {
    ["Sort", "TEMP B-TREE"].iter().any(|sort| plan.contains(sort))
}

type Statement<'q> = Query<'q, Any, AnyArguments>;

fn bind_page<'q>(query: Statement<'q>, listing: &Listing) -> Statement<'q> {
    let start = listing.start();
    let query = query.bind(listing.namespace.clone()).bind(listing.oldest()).bind(start.created_at).bind(start.uid);
    let filters = [listing.login.as_ref().map(|login| login.as_ref().to_owned()), listing.state.clone()];
    filters.into_iter().flatten().fold(query.bind(i64::from(listing.limit) + 1), Query::bind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_read_from_an_index_without_sorting() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database.clone());
        let orders = (0..5000).map(|number: i64| Sample {
            login: format!("login{}", number % 50),
            state: if number % 50 == 7 { STATES[1] } else { STATES[0] },
            created_second: number,
            ..Sample::new(&format!("u{:04}", number * 7919 % 5000))
        });
        for batch in orders.collect::<Vec<_>>().chunks(500) {
            store.put_all(&batch.iter().map(Sample::entry).collect::<Vec<_>>()).await?;
        }
        if database.kind == Kind::Postgres {
            // PostgreSQL does this by itself after a while. In SQLite, nothing does it.
            sqlx::query("ANALYZE").execute(&database.pool).await?;
        }

        let all = Listing { before: Some(Cursor { created_at: 2_000_000_000, uid: "u0001".into() }), ..Listing::of("shop") };
        let login = Login::try_from("login3".to_owned()).ok();
        let refused = Some(STATES[1].to_owned());
        let bounded = Listing { from: Some(1_000_000_000), to: Some(3_000_000_000), ..all.clone() };
        for (indexes, listing) in [
            (["orders_by_time"].as_slice(), all.clone()),
            (&["orders_by_time"], bounded.clone()),
            (&["orders_by_time"], Listing { before: None, ..bounded.clone() }),
            (&["orders_by_login"], Listing { login: login.clone(), ..all.clone() }),
            (&["orders_by_login"], Listing { login: login.clone(), ..bounded.clone() }),
            (&["orders_by_state"], Listing { state: refused.clone(), ..all.clone() }),
            (&["orders_by_state"], Listing { state: refused.clone(), ..bounded }),
            (&["orders_by_login", "orders_by_state"], Listing { login, state: refused, ..all }),
        ] {
            let plan = plan(&database, listing_sql(&listing), |query| bind_page(query, &listing)).await?;
            assert!(indexes.iter().any(|index| plan.contains(index)) && !sorts(&plan), "{listing:?}:\n{plan}");
            // The cursor is looked up in the index, not compared with each row.
            let condition_text = match database.kind {
                Kind::Sqlite => "(created_at,uid)<(?,?)",
                Kind::Postgres => "ROW(created_at, uid) < ROW(",
            };
            let condition = plan.lines().find(|line| line.contains(condition_text)).unwrap_or_default();
            assert!(condition.contains("Index Cond") || condition.contains("USING INDEX"), "{listing:?}:\n{plan}");
        }
        // The few orders with one name that were created within a second are sorted by their revision.
        let newest = plan(&database, NEWEST_OF_NAME, |query| query.bind("shop").bind("order-u0001")).await?;
        assert!(newest.contains("orders_by_name"), "{newest}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_reader_of_two_writers_reads_consistent_orders() -> Result<()> {
    on_both_databases(|database| async move {
        let store = Store::new(database);
        let entry = |revision| Sample { revision, ..Sample::new("hot") }.entry();
        store.put(&entry(1)).await?;
        let writer = |first: i64| {
            let store = store.clone();
            tokio::spawn(async move {
                for revision in (first..100).step_by(2) {
                    store.put(&entry(revision)).await?;
                }
                anyhow::Ok(())
            })
        };
        let (odd, even) = (writer(3), writer(2));
        let mut last = BTreeSet::from([0]);
        while !(odd.is_finished() && even.is_finished()) {
            let rows = store.export("", 10).await?;
            let entry = &rows[0].entry;
            assert!(entry.resource.contains(&format!(r#""resourceVersion":"{}""#, entry.revision)), "{entry:?}");
            assert!(last.iter().all(|revision| *revision <= entry.revision), "a revision is lower than an earlier one");
            last.insert(entry.revision);
        }
        odd.await??;
        even.await??;
        assert_eq!(store.export("", 10).await?[0].entry.revision, 99);
        Ok(())
    })
    .await
}
