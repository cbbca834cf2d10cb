//! The ledger's promises, on both databases.

use std::{
    collections::HashMap,
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use orders_billing::{
    error::LedgerError,
    ledger::{ChargeState, Kind, Ledger, MIGRATIONS, Movement, Opened, Outcome, Recorded, Refund},
};
use orders_crds::Money;
use orders_service::database::{self, Database};
use orders_testbed::{PATIENCE, Postgres};
use proptest::{prelude::*, test_runner::TestRunner};

/// Runs a test on SQLite and on PostgreSQL, each with a database of its own.
async fn on_both<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Database) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let directory = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", directory.path().join("billing.db").display());
    test(Database::open(&sqlite, 10, MIGRATIONS).await?).await?;
    let postgres = Postgres::start(directory.path()).await?;
    test(Database::open(&postgres.url(), 10, MIGRATIONS).await?).await
}

fn charge<'a>(key: &'a str, login: &'a str, minor: i64) -> Movement<'a> {
    Movement { kind: Kind::Charge, key, login, amount: Money::from_minor(minor), charge_key: None }
}

fn refill<'a>(key: &'a str, login: &'a str, minor: i64) -> Movement<'a> {
    Movement { kind: Kind::Refill, key, login, amount: Money::from_minor(minor), charge_key: None }
}

fn refund<'a>(key: &'a str, charge_key: &'a str, login: &'a str, minor: i64) -> Refund<'a> {
    Refund { key, charge_key, login, amount: Money::from_minor(minor) }
}

/// Calls again while the database is busy, as every caller does: under the same key.
async fn surely<T, F: Future<Output = Result<T, LedgerError>>>(call: impl Fn() -> F) -> Result<T, LedgerError> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(LedgerError::Database(error)) if database::is_unavailable(&error) && start.elapsed() < PATIENCE => {
                eprintln!("calling again: {error}");
            }
            answer => return answer,
        }
    }
}

/// What double entry promises, looked up in the tables themselves.
async fn assert_books_balance(database: &Database) -> Result<()> {
    let sum: i64 =
        sqlx::query_scalar("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings").fetch_one(&database.pool).await?;
    assert_eq!(sum, 0, "all postings sum to zero");
    let off: Vec<(String, i64)> = sqlx::query_as(
        "SELECT login, balance FROM accounts WHERE balance <> (
             SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM postings WHERE account = 'customer:' || login)",
    )
    .fetch_all(&database.pool)
    .await?;
    assert_eq!(off, [], "every balance is the sum of its postings");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_outcome_and_moves_nothing() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        let refused = ledger.record(&charge("dear", "a", 101)).await?;
        assert_eq!(
            refused,
            Recorded { outcome: Outcome::InsufficientFunds, balance: Some(Money::from_minor(100)), repeated: false }
        );
        let first = ledger.record(&charge("k", "a", 60)).await?;
        assert_eq!(first, Recorded { outcome: Outcome::Done, balance: Some(Money::from_minor(40)), repeated: false });
        ledger.record(&refill("more", "a", 1000)).await?;
        // Even where it would come out otherwise by now.
        assert_eq!(ledger.record(&charge("k", "a", 60)).await?, Recorded { repeated: true, ..first });
        assert_eq!(ledger.record(&charge("dear", "a", 101)).await?, Recorded { repeated: true, ..refused });
        assert_eq!(ledger.balance("a").await?, Money::from_minor(1040));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_one_request_only() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.register("b", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 10)).await?;
        for other in [charge("k", "a", 11), charge("k", "b", 10), refill("r", "b", 100)] {
            assert!(matches!(ledger.record(&other).await, Err(LedgerError::KeyReused)), "{other:?}");
        }
        // A refill's key and a charge's are not the same key.
        assert_eq!(ledger.record(&charge("r", "a", 10)).await?.outcome, Outcome::Done);
        assert_eq!(ledger.balance("a").await?, Money::from_minor(80));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_their_reason() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        let nobody = ledger.record(&charge("k", "nobody", 10)).await?;
        assert_eq!((nobody.outcome, nobody.balance), (Outcome::AccountNotFound, None));
        assert!(matches!(ledger.balance("nobody").await, Err(LedgerError::AccountNotFound)));
        ledger.register("rich", None).await?;
        assert!(matches!(ledger.register("rich", None).await, Err(LedgerError::AlreadyRegistered)));
        ledger.record(&refill("1", "rich", Money::MAX.minor())).await?;
        assert_eq!(ledger.record(&refill("2", "rich", 1)).await?.outcome, Outcome::BalanceLimit);
        assert_eq!(ledger.balance("rich").await?, Money::MAX);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_charges_at_once_on_one_account_lose_nothing_and_overdraw_nothing() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("hot", None).await?;
        ledger.record(&refill("r", "hot", 600)).await?;
        // Each key twice, so that repeats race with their firsts.
        let outcomes: Vec<Recorded> = stream::iter(0..200)
            .map(|i| {
                let ledger = &ledger;
                async move { surely(|| async { ledger.record(&charge(&format!("k{}", i / 2), "hot", 10)).await }).await }
            })
            .buffer_unordered(16)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        let done = outcomes.iter().filter(|recorded| recorded.outcome == Outcome::Done && !recorded.repeated).count();
        assert_eq!(done, 60);
        assert_eq!(outcomes.iter().filter(|recorded| recorded.repeated).count(), 100);
        assert_eq!(ledger.balance("hot").await?, Money::ZERO);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_charges_on_one_account_and_on_many_come_out_to_the_last_cent() -> Result<()> {
    const CHARGES: i64 = 2000;
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        for accounts in [1, 200] {
            let login = |number: i64| format!("of-{accounts}-{}", number % accounts);
            for number in 0..accounts {
                let login = login(number);
                ledger.register(&login, None).await?;
                // Enough for all but the last charge of each.
                ledger.record(&refill(&login, &login, CHARGES / accounts - 1)).await?;
            }
            let charges = stream::iter(0..CHARGES).map(|number| {
                let (ledger, login, key) = (&ledger, login(number), format!("{accounts}-{number}"));
                async move {
                    let charge = charge(&key, &login, 1);
                    surely(|| ledger.record(&charge)).await.map(|recorded| recorded.outcome)
                }
            });
            let outcomes: Vec<Outcome> = charges.buffer_unordered(64).try_collect().await?;
            let refused = outcomes.iter().filter(|outcome| **outcome == Outcome::InsufficientFunds).count();
            assert_eq!(refused as i64, accounts, "one of each account's");
            for number in 0..accounts {
                assert_eq!(ledger.balance(&login(number)).await?, Money::ZERO);
            }
        }
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_ledger_cannot_be_changed() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        for statement in [
            "UPDATE postings SET amount = amount + 1",
            "DELETE FROM postings",
            "UPDATE transactions SET amount = 1",
            "DELETE FROM transactions",
        ] {
            let refused = sqlx::query(statement).execute(&database.pool).await;
            assert!(refused.is_err_and(|error| error.to_string().contains("append-only")), "{statement}");
        }
        let overdraft = sqlx::query("UPDATE accounts SET balance = -1").execute(&database.pool).await;
        assert!(overdraft.is_err(), "a constraint forbids an overdraft");
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_opened_once_and_whoever_asks_again_is_told_its_balance() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        let openings = (0..20).map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move { surely(|| async { ledger.open("a", &format!("customer-{number}")).await }).await })
        });
        let mut opened = 0;
        for opening in openings.collect::<Vec<_>>() {
            let Opened { balance, by_key } = opening.await??;
            assert_eq!(balance, Money::ZERO);
            opened += i32::from(by_key);
        }
        assert_eq!(opened, 1, "of twenty at once one opens it");
        ledger.register("old", None).await?;
        ledger.record(&refill("r", "old", 100)).await?;
        for _ in 0..2 {
            assert_eq!(ledger.open("old", "k").await?, Opened { balance: Money::from_minor(100), by_key: false });
            assert_eq!(ledger.open("new", "k").await?, Opened { balance: Money::ZERO, by_key: true });
        }
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_charge_cannot_land_and_a_landed_one_cannot_be_closed() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        assert_eq!(ledger.charge("late").await?, None, "unknown to billing");
        let amount = Money::from_minor(60);
        assert_eq!(ledger.close("late", "a", amount).await?.outcome, Outcome::Closed);
        assert_eq!(
            ledger.close("late", "a", amount).await?,
            Recorded { outcome: Outcome::Closed, balance: Some(Money::from_minor(100)), repeated: true }
        );
        assert_eq!(ledger.record(&charge("late", "a", 60)).await?.outcome, Outcome::Closed, "it came too late");
        assert!(matches!(ledger.record(&charge("late", "a", 61)).await, Err(LedgerError::KeyReused)));

        ledger.record(&charge("done", "a", 60)).await?;
        assert_eq!(ledger.close("done", "a", amount).await?.outcome, Outcome::Done, "it stays charged");
        assert_eq!(ledger.balance("a").await?, Money::from_minor(40));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_closed_or_lands_never_both_however_they_race() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 1000)).await?;
        let mut landed = 0;
        for round in 0..30 {
            let key = format!("k{round}");
            let movement = charge(&key, "a", 10);
            let (charged, closed) =
                tokio::join!(surely(|| ledger.record(&movement)), surely(|| ledger.close(&key, "a", Money::from_minor(10))));
            let (charged, closed) = (charged?, closed?);
            assert_eq!(charged.outcome, closed.outcome, "both are told the same");
            landed += i64::from(charged.outcome == Outcome::Done);
        }
        assert_eq!(ledger.balance("a").await?.minor(), 1000 - 10 * landed);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_given_back_once_for_its_key_and_never_beyond_what_it_took() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        for login in ["a", "b"] {
            ledger.register(login, None).await?;
        }
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        ledger.record(&charge("dear", "a", 1000)).await?;
        ledger.close("closed", "a", Money::from_minor(5)).await?;

        let first = ledger.refund(&refund("f1", "k", "a", 40)).await?;
        assert_eq!(first, Recorded { outcome: Outcome::Done, balance: Some(Money::from_minor(80)), repeated: false });
        assert_eq!(ledger.refund(&refund("f1", "k", "a", 40)).await?, Recorded { repeated: true, ..first });
        assert!(matches!(ledger.refund(&refund("f1", "k", "a", 20)).await, Err(LedgerError::KeyReused)));
        assert!(matches!(ledger.refund(&refund("f2", "k", "a", 21)).await, Err(LedgerError::RefundTooLarge)));
        assert!(matches!(ledger.refund(&refund("f3", "k", "b", 1)).await, Err(LedgerError::ChargeNotFound)), "another's charge");
        assert!(matches!(ledger.refund(&refund("f4", "nothing", "a", 1)).await, Err(LedgerError::ChargeNotFound)));
        for charge in ["dear", "closed"] {
            assert!(matches!(ledger.refund(&refund("f5", charge, "a", 1)).await, Err(LedgerError::NotCharged)), "{charge}");
        }
        assert_eq!(ledger.refund(&refund("f2", "k", "a", 20)).await?.balance, Some(Money::from_minor(100)), "the rest");
        let state = ledger.charge("k").await?.expect("the charge");
        assert_eq!((state.outcome, state.refunded), (Outcome::Done, Money::from_minor(60)));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_refunds_at_once_give_a_charge_back_once() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        // Five with one key, five with a key each: one of all these gives the money back.
        let keys: Vec<String> = (0..10).map(|i| if i < 5 { "same".to_owned() } else { format!("f{i}") }).collect();
        let results: Vec<_> = stream::iter(&keys)
            .map(|key| {
                let ledger = &ledger;
                async move { surely(|| async { ledger.refund(&refund(key, "k", "a", 60)).await }).await }
            })
            .buffer_unordered(10)
            .collect()
            .await;
        let moved = results.iter().filter(|result| matches!(result, Ok(recorded) if !recorded.repeated)).count();
        assert_eq!(moved, 1, "{results:?}");
        assert_eq!(ledger.balance("a").await?, Money::from_minor(100));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_is_a_repeat_only_with_the_key_that_opened_the_account() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        assert!(!ledger.register("a", Some("k")).await?);
        assert!(ledger.register("a", Some("k")).await?);
        for key in [None, Some("other")] {
            assert!(matches!(ledger.register("a", key).await, Err(LedgerError::AlreadyRegistered)), "{key:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_in_the_outbox_with_its_movement_until_it_was_published_and_again_for_a_repeat() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        assert_eq!(ledger.outbox(10).await?, [], "the caller has the outcome in the answer");
        ledger.record_with_outbox(&charge("k", "a", 60), "a@b.cd").await?;
        ledger.record_with_outbox(&charge("dear", "a", 60), "a@b.cd").await?;
        ledger.close_with_outbox("closed", "a", Money::from_minor(5), "c@d.ef").await?;
        ledger.refund_with_outbox(&refund("f", "k", "a", 60)).await?;
        ledger.record_with_outbox(&charge("nobody's", "nobody", 1), "n@o.bo").await?;

        let entries = ledger.outbox(10).await?;
        let seen: Vec<_> = entries
            .iter()
            .map(|u| (u.kind, &*u.key, &*u.login, &*u.email, u.amount.minor(), u.outcome, u.balance.map(Money::minor)))
            .collect();
        assert_eq!(
            seen,
            [
                (Kind::Charge, "k", "a", "a@b.cd", 60, Outcome::Done, Some(40)),
                (Kind::Charge, "dear", "a", "a@b.cd", 60, Outcome::InsufficientFunds, Some(40)),
                (Kind::Charge, "closed", "a", "c@d.ef", 5, Outcome::Closed, Some(40)),
                // Under its charge's key.
                (Kind::Refund, "k", "a", "", 60, Outcome::Done, Some(100)),
                (Kind::Charge, "nobody's", "nobody", "n@o.bo", 1, Outcome::AccountNotFound, None),
            ]
        );
        assert_eq!(ledger.outbox(2).await?, entries[..2], "the oldest first");
        ledger.sent(entries[0].id).await?;
        assert_eq!(ledger.outbox(10).await?, entries[1..]);
        for entry in &entries[1..] {
            ledger.sent(entry.id).await?;
        }
        assert_eq!(ledger.outbox(10).await?, []);
        // A caller that repeats a request has not received the outcome.
        ledger.record_with_outbox(&charge("k", "a", 60), "a@b.cd").await?;
        ledger.close_with_outbox("closed", "a", Money::from_minor(5), "c@d.ef").await?;
        ledger.refund_with_outbox(&refund("f", "k", "a", 60)).await?;
        let again: Vec<_> = ledger.outbox(10).await?.into_iter().map(|entry| (entry.kind, entry.key)).collect();
        assert_eq!(again, [(Kind::Charge, "k".to_owned()), (Kind::Charge, "closed".to_owned()), (Kind::Refund, "k".to_owned())]);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_shown_as_it_stands() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        ledger.record(&charge("dear", "a", 41)).await?;
        ledger.record(&charge("none", "nobody", 1)).await?;
        ledger.refund(&refund("f", "k", "a", 25)).await?;
        let shown = |login: &str, amount, outcome, balance: Option<i64>, refunded| ChargeState {
            login: login.to_owned(),
            amount: Money::from_minor(amount),
            outcome,
            balance: balance.map(Money::from_minor),
            refunded: Money::from_minor(refunded),
        };
        assert_eq!(ledger.charge("k").await?, Some(shown("a", 60, Outcome::Done, Some(40), 25)));
        assert_eq!(ledger.charge("dear").await?, Some(shown("a", 41, Outcome::InsufficientFunds, Some(40), 0)));
        assert_eq!(ledger.charge("none").await?, Some(shown("nobody", 1, Outcome::AccountNotFound, None, 0)));
        assert_eq!(ledger.charge("r").await?, None, "a refill's key is no charge's");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_beyond_the_largest_balance_is_refused_and_moves_nothing() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("rich", None).await?;
        ledger.record(&refill("1", "rich", Money::MAX.minor())).await?;
        ledger.record(&charge("k", "rich", 10)).await?;
        ledger.record(&refill("2", "rich", 1)).await?;
        assert!(matches!(ledger.refund(&refund("f", "k", "rich", 10)).await, Err(LedgerError::BalanceLimit)));
        assert_eq!(ledger.refund(&refund("f", "k", "rich", 9)).await?.balance, Some(Money::MAX));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_has_every_row_over_all_pages() -> Result<()> {
    on_both(|database| async move {
        let ledger = Ledger::new(database.clone());
        for login in ["a", "b", "c"] {
            ledger.register(login, None).await?;
        }
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        ledger.record(&charge("dear", "b", 1)).await?;
        let mut transactions = Vec::new();
        while let page = ledger
            .transactions(transactions.last().map_or(0, |last: &orders_contracts::billing::ExportedTransaction| last.id), 2)
            .await?
            && !page.is_empty()
        {
            transactions.extend(page);
        }
        let rows: Vec<_> = transactions.iter().map(|t| (&*t.kind, &*t.key, &*t.login, t.amount.minor(), &*t.outcome)).collect();
        assert_eq!(
            rows,
            [
                ("refill", "r", "a", 100, "done"),
                ("charge", "k", "a", 60, "done"),
                ("charge", "dear", "b", 1, "insufficient_funds")
            ]
        );
        let legs = |place: usize| -> Vec<(&str, i64)> {
            transactions[place].postings.iter().map(|posting| (&*posting.account, posting.amount.minor())).collect()
        };
        assert_eq!(legs(0), [("cash", -100), ("customer:a", 100)]);
        assert_eq!(legs(1), [("customer:a", -60), ("revenue", 60)]);
        assert_eq!(legs(2), []);
        let accounts = ledger.accounts("a", 10).await?;
        assert_eq!(accounts.iter().map(|account| &*account.login).collect::<Vec<_>>(), ["b", "c"], "after a");
        let first = &ledger.accounts("", 1).await?[0];
        assert_eq!((first.balance, first.posted), (Money::from_minor(40), Money::from_minor(40)));
        let summary = ledger.summary().await?;
        assert_eq!((summary.transactions, summary.postings, summary.sum), (3, 4, Money::ZERO));
        Ok(())
    })
    .await
}

/// One random request.
#[derive(Clone, Debug)]
struct Request {
    kind: Kind,
    key: u8,
    login: u8,
    minor: i64,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (any::<bool>(), 0..8_u8, 0..3_u8, 1..50_i64).prop_map(|(is_refill, key, login, minor)| Request {
        kind: if is_refill { Kind::Refill } else { Kind::Charge },
        key,
        login,
        minor,
    });
    prop::collection::vec(request, 1..40)
}

/// The ledger as a few lines of arithmetic.
#[derive(Default)]
struct Model {
    balances: HashMap<u8, i64>,
    recorded: HashMap<(bool, u8), (Request, Outcome, Option<i64>)>,
}

impl Model {
    /// The outcome and balance to expect; `None` for a reused key.
    fn record(&mut self, request: &Request) -> Option<(Outcome, Option<i64>)> {
        let is_refill = request.kind == Kind::Refill;
        if let Some((first, outcome, balance)) = self.recorded.get(&(is_refill, request.key)) {
            return ((first.login, first.minor) == (request.login, request.minor)).then_some((*outcome, *balance));
        }
        let change = if is_refill { request.minor } else { -request.minor };
        let (outcome, balance) = match self.balances.get_mut(&request.login) {
            None => (Outcome::AccountNotFound, None),
            Some(balance) if *balance + change < 0 => (Outcome::InsufficientFunds, Some(*balance)),
            Some(balance) => {
                *balance += change;
                (Outcome::Done, Some(*balance))
            }
        };
        self.recorded.insert((is_refill, request.key), (request.clone(), outcome, balance));
        Some((outcome, balance))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_of_requests_comes_out_as_in_the_model() -> Result<()> {
    on_both(|database| async move {
        let runtime = tokio::runtime::Handle::current();
        let ledger = Ledger::new(database.clone());
        let checked = database.clone();
        tokio::task::spawn_blocking(move || {
            let mut runner =
                TestRunner::new(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() });
            let cases = AtomicU32::new(0);
            runner.run(&requests(), |requests| {
                let case = cases.fetch_add(1, Ordering::Relaxed);
                runtime.block_on(async {
                    // Two accounts are registered, the third is not.
                    let mut model = Model { balances: [(0, 0), (1, 0)].into(), ..Model::default() };
                    for login in [0, 1] {
                        ledger.register(&format!("case{case}-{login}"), None).await.expect("a new account");
                    }
                    for request in &requests {
                        let (key, login) = (format!("case{case}-{}", request.key), format!("case{case}-{}", request.login));
                        let amount = Money::from_minor(request.minor);
                        let actual = match ledger
                            .record(&Movement { kind: request.kind, key: &key, login: &login, amount, charge_key: None })
                            .await
                        {
                            Ok(recorded) => Some((recorded.outcome, recorded.balance.map(Money::minor))),
                            Err(LedgerError::KeyReused) => None,
                            Err(error) => panic!("{error}"),
                        };
                        prop_assert_eq!(actual, model.record(request), "{:?} of {:?}", request, requests);
                    }
                    Ok(())
                })
            })
        })
        .await??;
        assert_books_balance(&checked).await
    })
    .await
}
