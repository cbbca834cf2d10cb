//! The two phases of a charge, on both databases: it is authorized, and then captured or voided.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use jiff::{Timestamp, ToSpan};
use orders_billing::{
    error::LedgerError,
    ledger::{Ledger, MIGRATIONS, Movement, NewAuthorization, Outcome, RecordedMovement, VoidedCharge},
};
use orders_contracts::billing::{Authorization, ChargePhase};
use orders_crds::Money;
use orders_service::database::{Database, Kind, Migrations, Timeouts};
use orders_testbed::{Postgres, WAIT_TIMEOUT};
use proptest::{prelude::*, test_runner::TestRunner};
use sqlx::migrate::Migrator;

use crate::support::{assert_books_balance, charge, on_both_databases, refill, refund, retry_while_unavailable};

/// A charge that is authorized for a reference.
fn authorized<'a>(key: &'a str, reference: &'a str, login: &'a str, minor: i64) -> Movement<'a> {
    let authorization = Some(NewAuthorization { reference, metadata: r#"{"kind":"Order"}"# });
    Movement { authorization, ..charge(key, login, minor) }
}

/// Returns the authorizations that exist now.
async fn list(ledger: &Ledger) -> Result<Vec<Authorization>> {
    Ok(ledger.authorizations(0, Timestamp::now() + 1.hour(), 100).await?)
}

async fn keys(ledger: &Ledger) -> Result<Vec<String>> {
    Ok(list(ledger).await?.into_iter().map(|authorization| authorization.key).collect())
}

async fn phase(ledger: &Ledger, key: &str) -> Result<Option<ChargePhase>> {
    Ok(ledger.find_charge(key).await?.and_then(|charge| charge.phase))
}

/// Returns the sum of the postings to an account.
async fn posted(database: &Database, account: &str) -> Result<i64> {
    let sum =
        sqlx::query_scalar("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings WHERE account = $1").bind(account);
    Ok(sum.fetch_one(&database.pool).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_authorized_when_it_is_made_and_captured_once() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        let before = Timestamp::now();
        let first = ledger.record(&authorized("k", "shop/order-1", "a", 60)).await?;
        assert_eq!(first, RecordedMovement { outcome: Outcome::Done, balance: Some(Money::from_minor(40)), repeated: false });
        assert_eq!(ledger.record(&authorized("k", "shop/order-1", "a", 60)).await?, RecordedMovement { repeated: true, ..first });
        assert_eq!((posted(&database, "authorized").await?, posted(&database, "revenue").await?), (60, 0));
        assert_eq!(phase(&ledger, "k").await?, Some(ChargePhase::Authorized));

        let listed = list(&ledger).await?;
        let [authorization] = &*listed else { panic!("{listed:?}") };
        assert!(authorization.created_at >= before.as_microsecond());
        let metadata = serde_json::from_str(r#"{"kind":"Order"}"#)?;
        let expected = Authorization {
            id: authorization.id,
            key: "k".into(),
            login: "a".into(),
            amount: Money::from_minor(60),
            balance: Money::from_minor(40),
            created_at: authorization.created_at,
            reference: "shop/order-1".into(),
            metadata,
        };
        assert_eq!(*authorization, expected);

        assert_eq!(ledger.capture(&["k", "unknown"]).await?, 1);
        assert_eq!(ledger.capture(&["k"]).await?, 0, "it is captured once");
        assert_eq!((posted(&database, "authorized").await?, posted(&database, "revenue").await?), (0, 60));
        assert_eq!(phase(&ledger, "k").await?, Some(ChargePhase::Captured));
        assert_eq!(list(&ledger).await?, []);
        assert!(matches!(ledger.void("k").await, Err(LedgerError::NotAuthorized)));
        assert_eq!(ledger.balance("a").await?, Money::from_minor(40));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voided_charge_is_given_back_once_and_is_neither_captured_nor_refunded() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&authorized("k", "shop/order-1", "a", 60)).await?;
        let amount = Money::from_minor(60);
        let voided = VoidedCharge { login: "a".into(), amount, balance: Money::from_minor(100), repeated: false };
        assert_eq!(ledger.void("k").await?, voided);
        ledger.record(&refill("more", "a", 5)).await?;
        assert_eq!(ledger.void("k").await?, VoidedCharge { repeated: true, ..voided }, "the first result stays");
        assert_eq!(ledger.capture(&["k"]).await?, 0);
        assert!(matches!(ledger.refund(&refund("k", "k", "a", 60)).await, Err(LedgerError::RefundTooLarge)));
        let state = ledger.find_charge("k").await?.expect("the charge");
        assert_eq!((state.phase, state.refunded), (Some(ChargePhase::Voided), amount));
        assert_eq!((posted(&database, "authorized").await?, posted(&database, "revenue").await?), (0, 0));
        assert_eq!(ledger.balance("a").await?, Money::from_minor(105));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_authorized_charge_is_voided() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("captured-at-once", "a", 60)).await?;
        ledger.record(&authorized("refused", "shop/order-2", "a", 1000)).await?;
        ledger.close("closed", "a", Money::from_minor(1)).await?;
        assert_eq!(list(&ledger).await?, []);
        assert_eq!(phase(&ledger, "captured-at-once").await?, Some(ChargePhase::Captured));
        assert_eq!(phase(&ledger, "refused").await?, None);
        for key in ["captured-at-once", "refused", "closed"] {
            assert!(matches!(ledger.void(key).await, Err(LedgerError::NotAuthorized)), "{key}");
        }
        assert!(matches!(ledger.void("unknown").await, Err(LedgerError::ChargeNotFound)));
        assert_eq!(ledger.capture(&["captured-at-once", "refused", "closed", "unknown"]).await?, 0);
        assert_eq!(ledger.capture(&[]).await?, 0);
        assert_eq!(ledger.balance("a").await?, Money::from_minor(40));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_void_lands_although_refills_have_reached_the_limit() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("rich", None).await?;
        ledger.record(&refill("1", "rich", Money::MAX.minor())).await?;
        ledger.record(&authorized("k", "shop/order-1", "rich", 10)).await?;
        ledger.record(&refill("2", "rich", 1)).await?;
        assert_eq!(ledger.void("k").await?.balance, Money::from_minor(Money::MAX.minor() + 1));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_captures_the_authorized_charge() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&authorized("k", "shop/order-1", "a", 60)).await?;
        assert!(matches!(ledger.refund(&refund("large", "k", "a", 61)).await, Err(LedgerError::RefundTooLarge)));
        assert_eq!(phase(&ledger, "k").await?, Some(ChargePhase::Authorized), "a refused refund changes nothing");
        ledger.refund(&refund("f", "k", "a", 25)).await?;
        assert_eq!(phase(&ledger, "k").await?, Some(ChargePhase::Captured));
        assert_eq!((posted(&database, "authorized").await?, posted(&database, "revenue").await?), (0, 35));
        ledger.refund(&refund("g", "k", "a", 35)).await?;
        assert_eq!(list(&ledger).await?, []);
        assert_eq!(ledger.balance("a").await?, Money::from_minor(100));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_charges_of_a_reference_one_is_made() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&authorized("first", "shop/order-1", "a", 10)).await?;
        // Neither a charge that would be made nor one that would be refused is recorded.
        for minor in [10, 1000] {
            let second = ledger.record(&authorized("second", "shop/order-1", "a", minor)).await;
            assert!(matches!(second, Err(LedgerError::ReferenceInUse)), "{second:?}");
        }
        assert_eq!(ledger.find_charge("second").await?, None);
        assert_eq!(ledger.record(&authorized("other", "shop/order-2", "a", 10)).await?.outcome, Outcome::Done);
        assert_eq!(ledger.balance("a").await?, Money::from_minor(80));
        ledger.capture(&["first"]).await?;
        ledger.void("other").await?;
        for (key, reference) in [("second", "shop/order-1"), ("third", "shop/order-1"), ("fourth", "shop/order-2")] {
            for (minor, repeated) in [(10, false), (10, true)] {
                let refused = ledger.record(&authorized(key, reference, "a", minor)).await?;
                assert_eq!((refused.outcome, refused.repeated), (Outcome::AlreadyExists, repeated), "{key}");
                assert_eq!(refused.balance, Some(Money::from_minor(90)), "{key}");
            }
            assert_eq!(phase(&ledger, key).await?, None, "{key}");
            let closed = ledger.close(key, "a", Money::from_minor(10)).await?;
            assert_eq!((closed.outcome, closed.repeated), (Outcome::AlreadyExists, true), "{key}");
        }
        let repeated = ledger.record(&authorized("first", "shop/order-1", "a", 10)).await?;
        assert_eq!((repeated.outcome, repeated.repeated), (Outcome::Done, true), "its own reference");
        // A charge that was not made does not use its reference.
        for outcome in [Outcome::InsufficientFunds, Outcome::Done] {
            let minor = if outcome == Outcome::Done { 10 } else { 1000 };
            let recorded = ledger.record(&authorized(&format!("{outcome:?}"), "shop/order-3", "a", minor)).await?;
            assert_eq!(recorded.outcome, outcome);
        }
        assert_eq!(ledger.balance("a").await?, Money::from_minor(80));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_charges_of_a_reference_one_is_made_and_the_others_wait() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        for login in ["a", "b"] {
            ledger.register(login, None).await?;
            ledger.record(&refill(login, login, 1000)).await?;
        }
        for round in 0..20 {
            let (reference, keys) = (format!("shop/order-{round}"), [format!("{round}-a"), format!("{round}-b")]);
            let (first, second) = (authorized(&keys[0], &reference, "a", 1), authorized(&keys[1], &reference, "b", 1));
            let (first, second) = tokio::join!(
                retry_while_unavailable(|| ledger.record(&first)),
                retry_while_unavailable(|| ledger.record(&second))
            );
            match (first, second) {
                (Ok(made), Err(LedgerError::ReferenceInUse)) | (Err(LedgerError::ReferenceInUse), Ok(made)) => {
                    assert_eq!(made.outcome, Outcome::Done);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(posted(&database, "authorized").await?, 20);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_and_a_void_agree_whichever_comes_first() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 1000)).await?;
        let mut captured = 0;
        for round in 0..30 {
            let (key, reference) = (format!("k{round}"), format!("shop/order-{round}"));
            ledger.record(&authorized(&key, &reference, "a", 10)).await?;
            let keys = [&*key];
            let (capture, void) =
                tokio::join!(retry_while_unavailable(|| ledger.capture(&keys)), retry_while_unavailable(|| ledger.void(&key)));
            match (capture?, void) {
                (1, Err(LedgerError::NotAuthorized)) => captured += 1,
                (0, Ok(void)) => assert!(!void.repeated),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(posted(&database, "revenue").await?, 10 * captured);
        assert_eq!(posted(&database, "authorized").await?, 0);
        assert_eq!(ledger.balance("a").await?.minor(), 1000 - 10 * captured);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn authorizations_are_listed_page_by_page_and_by_age() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        let start = Timestamp::now();
        for number in 0..5 {
            ledger.record(&authorized(&format!("k{number}"), &format!("shop/order-{number}"), "a", 1)).await?;
        }
        let mut listed: Vec<Authorization> = Vec::new();
        let later = Timestamp::now() + 1.hour();
        while let page = ledger.authorizations(listed.last().map_or(0, |last| last.id), later, 2).await?
            && !page.is_empty()
        {
            assert!(page.len() <= 2);
            listed.extend(page);
        }
        let keys: Vec<&str> = listed.iter().map(|authorization| &*authorization.key).collect();
        assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
        assert_eq!(ledger.authorizations(0, start, 10).await?, [], "none is that old");
        Ok(())
    })
    .await
}

/// A step of a random sequence.
#[derive(Clone, Debug)]
enum Operation {
    /// Charges the account under this key, for a reference or at once.
    Charge(u8, Option<u8>),
    Capture(Vec<u8>),
    Void(u8),
    Refund(u8),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let key = || 0..5_u8;
    let operation = prop_oneof![
        (key(), prop::option::of(0..4_u8)).prop_map(|(key, reference)| Operation::Charge(key, reference)),
        prop::collection::vec(key(), 0..4).prop_map(Operation::Capture),
        key().prop_map(Operation::Void),
        key().prop_map(Operation::Refund),
    ];
    prop::collection::vec(operation, 1..30)
}

/// A charge in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charge {
    Authorized,
    Captured,
    Voided,
    Refunded,
    Refused,
}

/// The model of the ledger.
#[derive(Default)]
struct Model {
    charges: BTreeMap<u8, Charge>,
    /// The key of the charge that was made for each reference.
    references: BTreeMap<u8, u8>,
}

/// Applies an operation to the model. Returns whether it succeeds.
fn apply(Model { charges, references }: &mut Model, operation: &Operation) -> bool {
    match operation {
        Operation::Charge(key, _) if charges.contains_key(key) => true,
        Operation::Charge(key, None) => {
            charges.insert(*key, Charge::Captured);
            true
        }
        Operation::Charge(key, Some(reference)) => match references.get(reference).map(|made| charges[made]) {
            None => {
                references.insert(*reference, *key);
                charges.insert(*key, Charge::Authorized);
                true
            }
            Some(Charge::Authorized) => false,
            Some(_) => {
                charges.insert(*key, Charge::Refused);
                true
            }
        },
        Operation::Capture(keys) => {
            for key in keys {
                if let Some(charge @ Charge::Authorized) = charges.get_mut(key) {
                    *charge = Charge::Captured;
                }
            }
            true
        }
        Operation::Void(key) => match charges.get_mut(key) {
            Some(charge @ (Charge::Authorized | Charge::Voided)) => {
                *charge = Charge::Voided;
                true
            }
            _ => false,
        },
        Operation::Refund(key) => match charges.get_mut(key) {
            Some(charge @ (Charge::Authorized | Charge::Captured | Charge::Refunded)) => {
                *charge = Charge::Refunded;
                true
            }
            _ => false,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_of_operations_leaves_the_charges_in_the_phases_of_the_model() -> Result<()> {
    on_both_databases(|database| async move {
        let runtime = tokio::runtime::Handle::current();
        let (ledger, checked) = (Ledger::new(database.clone()), database.clone());
        tokio::task::spawn_blocking(move || {
            let mut runner =
                TestRunner::new(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() });
            let cases = AtomicU32::new(0);
            runner.run(&operations(), |operations| {
                let case = cases.fetch_add(1, Ordering::Relaxed);
                runtime.block_on(async {
                    let login = format!("case{case}");
                    let id = |number: &u8| format!("case{case}-{number}");
                    ledger.register(&login, None).await.expect("a new account");
                    ledger.record(&refill(&login, &login, 100)).await.expect("a refill");
                    let mut model = Model::default();
                    for operation in &operations {
                        let succeeded = match operation {
                            Operation::Charge(key, None) => ledger.record(&charge(&id(key), &login, 10)).await.is_ok(),
                            Operation::Charge(key, Some(reference)) => {
                                ledger.record(&authorized(&id(key), &id(reference), &login, 10)).await.is_ok()
                            }
                            Operation::Capture(keys) => {
                                let keys: Vec<String> = keys.iter().map(id).collect();
                                ledger.capture(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await.is_ok()
                            }
                            Operation::Void(key) => ledger.void(&id(key)).await.is_ok(),
                            Operation::Refund(key) => ledger.refund(&refund(&id(key), &id(key), &login, 10)).await.is_ok(),
                        };
                        prop_assert_eq!(succeeded, apply(&mut model, operation), "{:?} of {:?}", operation, operations);
                    }
                    for (key, charge) in &model.charges {
                        let state = ledger.find_charge(&id(key)).await.expect("a reply").expect("the charge");
                        let expected = match charge {
                            Charge::Authorized => (Some(ChargePhase::Authorized), 0),
                            Charge::Captured => (Some(ChargePhase::Captured), 0),
                            Charge::Voided => (Some(ChargePhase::Voided), 10),
                            Charge::Refunded => (Some(ChargePhase::Captured), 10),
                            Charge::Refused => (None, 0),
                        };
                        prop_assert_eq!((state.phase, state.refunded.minor()), expected, "{}", key);
                    }
                    let kept =
                        model.charges.values().filter(|charge| matches!(charge, Charge::Authorized | Charge::Captured)).count();
                    prop_assert_eq!(ledger.balance(&login).await.expect("a balance").minor(), 100 - 10 * kept as i64);
                    Ok(())
                })
            })
        })
        .await??;
        let open: i64 = list(&Ledger::new(checked.clone())).await?.iter().map(|authorization| authorization.amount.minor()).sum();
        assert_eq!(posted(&checked, "authorized").await?, open, "the account has the open authorizations");
        assert_books_balance(&checked).await
    })
    .await
}

/// The first migrations, which are those of an earlier version.
fn first_migrations(count: usize) -> Migrations {
    let first = |migrator: &Migrator| -> &'static Migrator {
        Box::leak(Box::new(Migrator::with_migrations(migrator.iter().take(count).cloned().collect())))
    };
    Migrations { sqlite: first(MIGRATIONS.sqlite), postgres: first(MIGRATIONS.postgres) }
}

/// Asserts what SQLite does not check when a migration copies a table.
async fn assert_rows_refer_to_rows(database: &Database) -> Result<()> {
    if database.kind == Kind::Sqlite {
        let problems: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM pragma_foreign_key_check").fetch_one(&database.pool).await?;
        assert_eq!(problems, 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_from_before_the_upgrade_are_captured() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let sqlite = format!("sqlite://{}", directory.path().join("billing.db").display());
    for url in [sqlite, postgres.url()] {
        let open = |migrations| Database::open_with_timeouts(&url, 10, migrations, Timeouts::uniform(WAIT_TIMEOUT));
        let previous = open(first_migrations(2)).await?;
        for statement in [
            "INSERT INTO accounts (login, balance) VALUES ('a', 40)",
            "INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at)
             VALUES ('refill', 'r', 'a', 100, 'done', 100, 1), ('charge', 'k', 'a', 60, 'done', 40, 2)",
            "INSERT INTO postings (transaction_id, account, amount)
             VALUES (1, 'cash', -100), (1, 'customer:a', 100), (2, 'customer:a', -60), (2, 'revenue', 60)",
            "INSERT INTO outbox (transaction_id, email) VALUES (2, 'a@b.cd')",
        ] {
            sqlx::query(statement).execute(&previous.pool).await?;
        }
        previous.pool.close().await;

        let database = open(MIGRATIONS).await?;
        let ledger = Ledger::new(database.clone());
        assert_eq!(phase(&ledger, "k").await?, Some(ChargePhase::Captured));
        assert!(matches!(ledger.void("k").await, Err(LedgerError::NotAuthorized)));
        assert_eq!(ledger.outbox(10).await?.len(), 1);
        assert!(ledger.record(&authorized("k", "shop/order-1", "a", 60)).await?.repeated);
        assert_eq!(list(&ledger).await?, [], "a repeat does not authorize it again");
        ledger.record(&authorized("new", "shop/order-2", "a", 10)).await?;
        ledger.capture(&["new"]).await?;
        ledger.refund(&refund("f", "k", "a", 60)).await?;
        assert_eq!(ledger.balance("a").await?, Money::from_minor(90));
        let ids: Vec<i64> = ledger.transactions(0, 10).await?.iter().map(|transaction| transaction.id).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5], "{:?}: the numbers go on", database.kind);
        assert!(sqlx::query("DELETE FROM transactions").execute(&database.pool).await.is_err());
        assert_books_balance(&database).await?;
        assert_rows_refer_to_rows(&database).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_was_authorized_before_the_upgrade_keeps_its_reference() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let sqlite = format!("sqlite://{}", directory.path().join("billing.db").display());
    for url in [sqlite, postgres.url()] {
        let open = |migrations| Database::open_with_timeouts(&url, 10, migrations, Timeouts::uniform(WAIT_TIMEOUT));
        let previous = open(first_migrations(3)).await?;
        for statement in [
            "INSERT INTO accounts (login, balance) VALUES ('a', 40)",
            "INSERT INTO transactions (kind, key, login, amount, outcome, balance, created_at)
             VALUES ('refill', 'r', 'a', 100, 'done', 100, 1), ('charge', 'k', 'a', 60, 'done', 40, 2)",
            "INSERT INTO postings (transaction_id, account, amount)
             VALUES (1, 'cash', -100), (1, 'customer:a', 100), (2, 'customer:a', -60), (2, 'authorized', 60)",
            "INSERT INTO authorizations (transaction_id, charge_key, reference, metadata, created_at)
             VALUES (2, 'k', 'shop/order-1', '{}', 2)",
        ] {
            sqlx::query(statement).execute(&previous.pool).await?;
        }
        previous.pool.close().await;

        let database = open(MIGRATIONS).await?;
        let ledger = Ledger::new(database.clone());
        assert_eq!((keys(&ledger).await?, phase(&ledger, "k").await?), (vec!["k".to_owned()], Some(ChargePhase::Authorized)));
        let second = authorized("second", "shop/order-1", "a", 10);
        assert!(matches!(ledger.record(&second).await, Err(LedgerError::ReferenceInUse)));
        assert_eq!(ledger.capture(&["k"]).await?, 1);
        assert_eq!(ledger.record(&second).await?.outcome, Outcome::AlreadyExists);
        assert_eq!(ledger.balance("a").await?, Money::from_minor(40));
        assert!(sqlx::query("UPDATE transactions SET reference = NULL").execute(&database.pool).await.is_err());
        assert_books_balance(&database).await?;
        assert_rows_refer_to_rows(&database).await?;
    }
    Ok(())
}
