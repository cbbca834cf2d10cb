//! Group commit on PostgreSQL: concurrent movements share transactions, and each movement has its own
//! outcome.

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use orders_billing::{
    error::LedgerError,
    ledger::{Kind, Ledger, MIGRATIONS, Movement, Outcome},
};
use orders_crds::Money;
use orders_service::database::{Database, Timeouts};
use orders_testbed::{Postgres, WAIT_TIMEOUT};

fn movement<'a>(kind: Kind, key: &'a str, login: &'a str, minor: i64) -> Movement<'a> {
    Movement { kind, key, login, amount: Money::from_minor(minor), charge_key: None, authorization: None }
}

async fn ledger_with(accounts: &[&str], balance: i64, postgres: &Postgres) -> Result<(Ledger, Database)> {
    let database = Database::open_with_timeouts(&postgres.url(), 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?;
    let ledger = Ledger::new(database.clone());
    for login in accounts {
        ledger.register(login, None).await?;
        ledger.record(&movement(Kind::Refill, login, login, balance)).await?;
    }
    Ok((ledger, database))
}

#[tokio::test]
async fn concurrent_charges_share_transactions() -> Result<()> {
    const CHARGES: i64 = 320;
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (ledger, _) = ledger_with(&["a", "b", "c"], 1000, &postgres).await?;
    let before = postgres.written_transactions()?;
    let charges = (0..CHARGES).map(|number| {
        let (ledger, login) = (&ledger, ["a", "b", "c"][number as usize % 3]);
        async move { ledger.record(&movement(Kind::Charge, &format!("k{number}"), login, 1)).await }
    });
    let recorded = try_join_all(charges).await?;
    let transactions = postgres.written_transactions()? - before;
    assert!(recorded.iter().all(|recorded| recorded.outcome == Outcome::Done && !recorded.repeated));
    let mut balances: Vec<_> = recorded.iter().filter_map(|recorded| recorded.balance).map(Money::minor).collect();
    balances.sort_unstable();
    // Every third charge is of the same account, and each charge is one minor unit.
    let expected: Vec<i64> = (0..CHARGES).rev().map(|number| 999 - number / 3).collect();
    assert_eq!(balances, expected, "each charge returns the balance right after it");
    assert!(transactions <= CHARGES as u64 / 20, "{CHARGES} concurrent charges needed {transactions} transactions");
    Ok(())
}

#[tokio::test]
async fn each_movement_of_a_batch_has_its_own_outcome() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (ledger, database) = ledger_with(&["rich", "poor", "known", "twice"], 100, &postgres).await?;
    ledger.record(&movement(Kind::Charge, "first", "known", 30)).await?;
    let movements = [
        movement(Kind::Charge, "rich-1", "rich", 40),
        movement(Kind::Refill, "rich-2", "rich", 10),
        movement(Kind::Charge, "poor-1", "poor", 70),
        movement(Kind::Charge, "poor-2", "poor", 70),
        movement(Kind::Charge, "first", "known", 30),
        movement(Kind::Charge, "first", "rich", 30),
        movement(Kind::Charge, "same", "twice", 10),
        movement(Kind::Charge, "same", "twice", 10),
        movement(Kind::Charge, "nobody-1", "nobody", 10),
    ];
    let recorded = join_all(movements.iter().map(|movement| ledger.record(movement))).await;
    let outcomes: Vec<_> = recorded.iter().map(|recorded| recorded.as_ref().map(|recorded| recorded.outcome).ok()).collect();
    assert_eq!(outcomes[0..2], [Some(Outcome::Done); 2]);
    let mut outcomes_of_poor = outcomes[2..4].to_vec();
    outcomes_of_poor.sort_by_key(|outcome| *outcome != Some(Outcome::Done));
    assert_eq!(outcomes_of_poor, [Some(Outcome::Done), Some(Outcome::InsufficientFunds)]);
    assert!(recorded[4].as_ref().is_ok_and(|recorded| recorded.repeated && recorded.balance == Some(Money::from_minor(70))));
    assert!(matches!(recorded[5], Err(LedgerError::KeyReused)));
    let repeats = recorded[6..8].iter().flatten().map(|recorded| (recorded.outcome, recorded.repeated)).collect::<Vec<_>>();
    assert!(repeats.contains(&(Outcome::Done, false)) && repeats.contains(&(Outcome::Done, true)), "{repeats:?}");
    assert_eq!(outcomes[8], Some(Outcome::AccountNotFound));
    for (login, balance) in [("rich", 70), ("poor", 30), ("known", 70), ("twice", 90)] {
        assert_eq!(ledger.balance(login).await?, Money::from_minor(balance), "{login}");
    }
    let sum: i64 = sqlx::query_scalar("SELECT sum(amount)::bigint FROM postings").fetch_one(&database.pool).await?;
    assert_eq!(sum, 0);
    Ok(())
}

#[tokio::test]
async fn a_locked_account_does_not_delay_movements_of_other_accounts() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (ledger, database) = ledger_with(&["free", "locked"], 100, &postgres).await?;
    let mut lock_holder = database.pool.begin().await?;
    sqlx::query("SELECT 1 FROM accounts WHERE login = 'locked' FOR UPDATE").execute(&mut *lock_holder).await?;

    let of_locked_account = movement(Kind::Charge, "k1", "locked", 10);
    let waiting = ledger.record(&of_locked_account);
    tokio::pin!(waiting);
    let of_free_account = movement(Kind::Charge, "k2", "free", 10);
    let first = tokio::select! {
        biased;
        _ = &mut waiting => None,
        recorded = ledger.record(&of_free_account) => Some(recorded?),
    };
    assert_eq!(first.context("the charge of the locked account completed first")?.outcome, Outcome::Done);
    lock_holder.commit().await?;
    assert_eq!(waiting.await?.outcome, Outcome::Done);
    Ok(())
}
