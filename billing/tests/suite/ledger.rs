//! The guarantees of the ledger, on both databases.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use orders_billing::{
    error::LedgerError,
    ledger::{ChargeState, Kind, Ledger, Movement, OpenedAccount, Outcome, RecordedMovement},
};
use orders_contracts::billing::ChargePhase;
use orders_crds::Money;
use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{assert_books_balance, charge, on_both_databases, refill, refund, retry_while_unavailable};

#[test]
fn the_other_services_know_each_outcome_that_a_charge_can_have() {
    use orders_crds::{Outcome as ChargeOutcome, Refusal};
    for (outcome, expected) in [
        (Outcome::Done, Some(ChargeOutcome::Paid)),
        (Outcome::InsufficientFunds, Some(ChargeOutcome::Refused(Refusal::InsufficientFunds))),
        (Outcome::AccountNotFound, Some(ChargeOutcome::Refused(Refusal::AccountNotFound))),
        (Outcome::Closed, Some(ChargeOutcome::Refused(Refusal::Cancelled))),
        (Outcome::BalanceLimit, None),
    ] {
        assert_eq!(outcome.to_charge_outcome(), expected, "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_returns_the_first_outcome_and_moves_no_money() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        let refused = ledger.record(&charge("too-expensive", "a", 101)).await?;
        assert_eq!(
            refused,
            RecordedMovement { outcome: Outcome::InsufficientFunds, balance: Some(Money::from_minor(100)), repeated: false }
        );
        let first = ledger.record(&charge("k", "a", 60)).await?;
        assert_eq!(first, RecordedMovement { outcome: Outcome::Done, balance: Some(Money::from_minor(40)), repeated: false });
        ledger.record(&refill("more", "a", 1000)).await?;
        // The first outcome stays, even if a new request would have another outcome by now.
        assert_eq!(ledger.record(&charge("k", "a", 60)).await?, RecordedMovement { repeated: true, ..first });
        assert_eq!(ledger.record(&charge("too-expensive", "a", 101)).await?, RecordedMovement { repeated: true, ..refused });
        assert_eq!(ledger.balance("a").await?, Money::from_minor(1040));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_valid_for_one_request_only() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.register("b", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 10)).await?;
        for other in [charge("k", "a", 11), charge("k", "b", 10), refill("r", "b", 100)] {
            assert!(matches!(ledger.record(&other).await, Err(LedgerError::KeyReused)), "{other:?}");
        }
        // Refills and charges have separate sets of keys.
        assert_eq!(ledger.record(&charge("r", "a", 10)).await?.outcome, Outcome::Done);
        assert_eq!(ledger.balance("a").await?, Money::from_minor(80));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_their_reason() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        let refused = ledger.record(&charge("k", "nobody", 10)).await?;
        assert_eq!((refused.outcome, refused.balance), (Outcome::AccountNotFound, None));
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
async fn a_hundred_concurrent_charges_of_one_account_lose_no_money_and_never_overdraw_it() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("hot", None).await?;
        ledger.record(&refill("r", "hot", 600)).await?;
        // Each key occurs twice, so that repeated requests race with first requests.
        let outcomes: Vec<RecordedMovement> = stream::iter(0..200)
            .map(|i| {
                let ledger = &ledger;
                async move {
                    retry_while_unavailable(|| async { ledger.record(&charge(&format!("k{}", i / 2), "hot", 10)).await }).await
                }
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
async fn thousands_of_charges_of_one_account_and_of_many_are_exact_to_the_cent() -> Result<()> {
    const CHARGES: i64 = 2000;
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        for accounts in [1, 200] {
            let login = |number: i64| format!("customer-{accounts}-{}", number % accounts);
            for number in 0..accounts {
                let login = login(number);
                ledger.register(&login, None).await?;
                // The balance suffices for all charges of the account except the last.
                ledger.record(&refill(&login, &login, CHARGES / accounts - 1)).await?;
            }
            let charges = stream::iter(0..CHARGES).map(|number| {
                let (ledger, login, key) = (&ledger, login(number), format!("{accounts}-{number}"));
                async move {
                    let charge = charge(&key, &login, 1);
                    retry_while_unavailable(|| ledger.record(&charge)).await.map(|recorded| recorded.outcome)
                }
            });
            let outcomes: Vec<Outcome> = charges.buffer_unordered(64).try_collect().await?;
            let refused = outcomes.iter().filter(|outcome| **outcome == Outcome::InsufficientFunds).count();
            assert_eq!(refused as i64, accounts, "one charge of each account is refused");
            for number in 0..accounts {
                assert_eq!(ledger.balance(&login(number)).await?, Money::ZERO);
            }
        }
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_rows_cannot_be_changed() -> Result<()> {
    on_both_databases(|database| async move {
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
async fn an_account_is_opened_once_and_a_repeated_call_returns_its_balance() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        let openings = (0..20).map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                retry_while_unavailable(|| async { ledger.ensure_account("a", &format!("customer-{number}")).await }).await
            })
        });
        let mut opened = 0;
        for opening in openings.collect::<Vec<_>>() {
            let OpenedAccount { balance, is_opened_by_key } = opening.await??;
            assert_eq!(balance, Money::ZERO);
            opened += i32::from(is_opened_by_key);
        }
        assert_eq!(opened, 1, "one of twenty concurrent calls opens the account");
        ledger.register("old", None).await?;
        ledger.record(&refill("r", "old", 100)).await?;
        for _ in 0..2 {
            assert_eq!(
                ledger.ensure_account("old", "k").await?,
                OpenedAccount { balance: Money::from_minor(100), is_opened_by_key: false }
            );
            assert_eq!(ledger.ensure_account("new", "k").await?, OpenedAccount { balance: Money::ZERO, is_opened_by_key: true });
        }
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_charge_cannot_be_made_and_a_charge_that_was_made_cannot_be_closed() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        assert_eq!(ledger.find_charge("late").await?, None, "billing has no such charge");
        let amount = Money::from_minor(60);
        assert_eq!(ledger.close("late", "a", amount).await?.outcome, Outcome::Closed);
        assert_eq!(
            ledger.close("late", "a", amount).await?,
            RecordedMovement { outcome: Outcome::Closed, balance: Some(Money::from_minor(100)), repeated: true }
        );
        assert_eq!(ledger.record(&charge("late", "a", 60)).await?.outcome, Outcome::Closed, "the charge was closed before");
        assert!(matches!(ledger.record(&charge("late", "a", 61)).await, Err(LedgerError::KeyReused)));

        ledger.record(&charge("done", "a", 60)).await?;
        assert_eq!(ledger.close("done", "a", amount).await?.outcome, Outcome::Done, "the charge stays");
        assert_eq!(ledger.balance("a").await?, Money::from_minor(40));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_and_its_close_agree_on_one_outcome_whichever_comes_first() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 1000)).await?;
        let mut made = 0;
        for round in 0..30 {
            let key = format!("k{round}");
            let movement = charge(&key, "a", 10);
            let (charged, closed) = tokio::join!(
                retry_while_unavailable(|| ledger.record(&movement)),
                retry_while_unavailable(|| ledger.close(&key, "a", Money::from_minor(10)))
            );
            let (charged, closed) = (charged?, closed?);
            assert_eq!(charged.outcome, closed.outcome, "both calls return the same outcome");
            made += i64::from(charged.outcome == Outcome::Done);
        }
        assert_eq!(ledger.balance("a").await?.minor(), 1000 - 10 * made);
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_refunded_once_for_each_key_and_at_most_in_full() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        for login in ["a", "b"] {
            ledger.register(login, None).await?;
        }
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        ledger.record(&charge("too-expensive", "a", 1000)).await?;
        ledger.close("closed", "a", Money::from_minor(5)).await?;

        let first = ledger.refund(&refund("f1", "k", "a", 40)).await?;
        assert_eq!(first, RecordedMovement { outcome: Outcome::Done, balance: Some(Money::from_minor(80)), repeated: false });
        assert_eq!(ledger.refund(&refund("f1", "k", "a", 40)).await?, RecordedMovement { repeated: true, ..first });
        assert!(matches!(ledger.refund(&refund("f1", "k", "a", 20)).await, Err(LedgerError::KeyReused)));
        assert!(matches!(ledger.refund(&refund("f2", "k", "a", 21)).await, Err(LedgerError::RefundTooLarge)));
        assert!(
            matches!(ledger.refund(&refund("f3", "k", "b", 1)).await, Err(LedgerError::ChargeNotFound)),
            "the charge of another customer"
        );
        assert!(matches!(ledger.refund(&refund("f4", "nothing", "a", 1)).await, Err(LedgerError::ChargeNotFound)));
        for charge in ["too-expensive", "closed"] {
            assert!(matches!(ledger.refund(&refund("f5", charge, "a", 1)).await, Err(LedgerError::NotCharged)), "{charge}");
        }
        assert_eq!(ledger.refund(&refund("f2", "k", "a", 20)).await?.balance, Some(Money::from_minor(100)), "the rest");
        let state = ledger.find_charge("k").await?.expect("the charge");
        assert_eq!((state.outcome, state.refunded), (Outcome::Done, Money::from_minor(60)));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_concurrent_refunds_refund_a_charge_once() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        // Five refunds have the same key, and five have a key each. One of them moves the money.
        let keys: Vec<String> = (0..10).map(|i| if i < 5 { "same".to_owned() } else { format!("f{i}") }).collect();
        let results: Vec<_> = stream::iter(&keys)
            .map(|key| {
                let ledger = &ledger;
                async move { retry_while_unavailable(|| async { ledger.refund(&refund(key, "k", "a", 60)).await }).await }
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
    on_both_databases(|database| async move {
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
async fn an_outcome_is_in_the_outbox_until_it_is_published_and_a_repeated_request_adds_it_again() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        assert_eq!(ledger.outbox(10).await?, [], "the caller gets the outcome in the response");
        ledger.record_with_outbox(&charge("k", "a", 60), "a@b.cd").await?;
        ledger.record_with_outbox(&charge("too-expensive", "a", 60), "a@b.cd").await?;
        ledger.close_with_outbox("closed", "a", Money::from_minor(5), "c@d.ef").await?;
        ledger.refund_with_outbox(&refund("f", "k", "a", 60)).await?;
        ledger.record_with_outbox(&charge("nobody's", "nobody", 1), "n@o.bo").await?;

        let entries = ledger.outbox(10).await?;
        let rows: Vec<_> = entries
            .iter()
            .map(|e| (e.kind, &*e.key, &*e.login, &*e.email, e.amount.minor(), e.outcome, e.balance.map(Money::minor)))
            .collect();
        assert_eq!(
            rows,
            [
                (Kind::Charge, "k", "a", "a@b.cd", 60, Outcome::Done, Some(40)),
                (Kind::Charge, "too-expensive", "a", "a@b.cd", 60, Outcome::InsufficientFunds, Some(40)),
                (Kind::Charge, "closed", "a", "c@d.ef", 5, Outcome::Closed, Some(40)),
                // The key is the key of the charge.
                (Kind::Refund, "k", "a", "", 60, Outcome::Done, Some(100)),
                (Kind::Charge, "nobody's", "nobody", "n@o.bo", 1, Outcome::AccountNotFound, None),
            ]
        );
        assert_eq!(ledger.outbox(2).await?, entries[..2], "the oldest first");
        ledger.remove_from_outbox(entries[0].id).await?;
        assert_eq!(ledger.outbox(10).await?, entries[1..]);
        for entry in &entries[1..] {
            ledger.remove_from_outbox(entry.id).await?;
        }
        assert_eq!(ledger.outbox(10).await?, []);
        // A caller repeats a request because it did not receive the outcome.
        ledger.record_with_outbox(&charge("k", "a", 60), "a@b.cd").await?;
        ledger.close_with_outbox("closed", "a", Money::from_minor(5), "c@d.ef").await?;
        ledger.refund_with_outbox(&refund("f", "k", "a", 60)).await?;
        let repeated: Vec<_> = ledger.outbox(10).await?.into_iter().map(|entry| (entry.kind, entry.key)).collect();
        assert_eq!(
            repeated,
            [(Kind::Charge, "k".to_owned()), (Kind::Charge, "closed".to_owned()), (Kind::Refund, "k".to_owned())]
        );
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_current_state_of_a_charge_can_be_looked_up() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("a", None).await?;
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        ledger.record(&charge("too-expensive", "a", 41)).await?;
        ledger.record(&charge("none", "nobody", 1)).await?;
        ledger.refund(&refund("f", "k", "a", 25)).await?;
        let state = |login: &str, amount, outcome, balance: Option<i64>, refunded| ChargeState {
            login: login.to_owned(),
            amount: Money::from_minor(amount),
            outcome,
            balance: balance.map(Money::from_minor),
            phase: (outcome == Outcome::Done).then_some(ChargePhase::Captured),
            refunded: Money::from_minor(refunded),
        };
        assert_eq!(ledger.find_charge("k").await?, Some(state("a", 60, Outcome::Done, Some(40), 25)));
        assert_eq!(ledger.find_charge("too-expensive").await?, Some(state("a", 41, Outcome::InsufficientFunds, Some(40), 0)));
        assert_eq!(ledger.find_charge("none").await?, Some(state("nobody", 1, Outcome::AccountNotFound, None, 0)));
        assert_eq!(ledger.find_charge("r").await?, None, "this is the key of a refill");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_lands_although_refills_have_reached_the_limit() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        ledger.register("rich", None).await?;
        ledger.record(&refill("1", "rich", Money::MAX.minor())).await?;
        ledger.record(&charge("k", "rich", 10)).await?;
        ledger.record(&refill("2", "rich", 1)).await?;
        let above = Some(Money::from_minor(Money::MAX.minor() + 1));
        assert_eq!(ledger.record(&refill("3", "rich", 10)).await?.outcome, Outcome::BalanceLimit);
        assert_eq!(ledger.refund(&refund("f", "k", "rich", 10)).await?.balance, above);
        // Above the limit, the customer can spend, and not refill.
        assert_eq!(ledger.record(&refill("4", "rich", 1)).await?.balance, above);
        assert_eq!(ledger.record(&charge("spent", "rich", 1)).await?.balance, Some(Money::MAX));
        assert_books_balance(&database).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_the_export_contain_every_row() -> Result<()> {
    on_both_databases(|database| async move {
        let ledger = Ledger::new(database.clone());
        for login in ["a", "b", "c"] {
            ledger.register(login, None).await?;
        }
        ledger.record(&refill("r", "a", 100)).await?;
        ledger.record(&charge("k", "a", 60)).await?;
        ledger.record(&charge("too-expensive", "b", 1)).await?;
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
                ("charge", "too-expensive", "b", 1, "insufficient_funds")
            ]
        );
        let postings = |index: usize| -> Vec<(&str, i64)> {
            transactions[index].postings.iter().map(|posting| (&*posting.account, posting.amount.minor())).collect()
        };
        assert_eq!(postings(0), [("cash", -100), ("customer:a", 100)]);
        assert_eq!(postings(1), [("customer:a", -60), ("revenue", 60)]);
        assert_eq!(postings(2), []);
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

/// A random request.
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

/// A model of the ledger, without a database.
#[derive(Default)]
struct Model {
    balances: HashMap<u8, i64>,
    recorded: HashMap<(bool, u8), (Request, Outcome, Option<i64>)>,
}

impl Model {
    /// Returns the expected outcome and balance, or `None` for a reused key.
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
async fn any_sequence_of_requests_has_the_same_outcomes_as_in_the_model() -> Result<()> {
    on_both_databases(|database| async move {
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
                            .record(&Movement {
                                kind: request.kind,
                                key: &key,
                                login: &login,
                                amount,
                                charge_key: None,
                                authorization: None,
                            })
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

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_has_one_id_that_no_other_ledger_has() -> Result<()> {
    let ids = Arc::new(Mutex::new(Vec::new()));
    on_both_databases(|database| {
        let ids = ids.clone();
        async move {
            // Replicas that start at once.
            let calls = (0..20).map(|_| {
                let ledger = Ledger::new(database.clone());
                async move { retry_while_unavailable(async || ledger.id().await.map(str::to_owned)).await }
            });
            let first = futures::future::try_join_all(calls).await?;
            assert!(first.iter().all(|id| *id == first[0]), "{first:?}");
            assert_eq!(Ledger::new(database).id().await?, first[0], "the same after a restart");
            ids.lock().unwrap().push(first[0].clone());
            Ok(())
        }
    })
    .await?;
    let ids = ids.lock().unwrap();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    Ok(())
}
