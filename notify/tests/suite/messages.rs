//! Messages: stored once, delivered to a real mail server, on both databases.

use std::{future::Future, time::Duration};

use anyhow::Result;
use futures::future::{join_all, try_join_all};
use orders_notify::{
    delivery::Delivery,
    error::NotifyError,
    log::Log,
    mailer::{MailArgs, Mailer},
    message::{NewMessage, State},
};
use orders_service::{
    database::{Database, Kind, Timeouts},
    shutdown::Shutdown,
};
use orders_testbed::{Inbox, Postgres, WAIT_TIMEOUT, wait_for};

pub use orders_notify::log::MIGRATIONS;

use crate::smtp::arguments;

/// A lease that does not expire during a test.
const LEASE: Duration = Duration::from_secs(3600);

/// Runs a test on SQLite and on PostgreSQL, each with a database of its own.
async fn on_both_databases<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Database) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let directory = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", directory.path().join("notify.db").display());
    test(Database::open_with_timeouts(&sqlite, 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?).await?;
    let postgres = Postgres::start(directory.path()).await?;
    test(Database::open_with_timeouts(&postgres.url(), 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?).await
}

async fn with_log_on_both_databases<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Log) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    on_both_databases(|database| test(Log::new(database))).await
}

pub fn message(key: &str) -> NewMessage {
    NewMessage {
        key: key.to_owned(),
        login: "anna".to_owned(),
        email: "anna@example.com".to_owned(),
        text: "Заказ успешно оформлен".to_owned(),
        resends: 0,
    }
}

/// A mailer that sends to the inbox.
fn mailer(inbox: &Inbox) -> Result<Mailer> {
    Mailer::new(&MailArgs { mail_from: "orders@arch.homework".to_owned(), ..arguments(&inbox.smtp_url()) })
}

/// Waits until the e-mail with this key is in the inbox.
async fn wait_for_mail(inbox: &Inbox, key: &str) -> Result<()> {
    wait_for(&format!("the mail {key}"), WAIT_TIMEOUT, || async {
        inbox.messages().await.ok()?.iter().any(|mail| mail.message_id.starts_with(key)).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_delivered_once_for_its_key_with_a_message_id_derived_from_the_key() -> Result<()> {
    with_log_on_both_databases(|log| async move {
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), mailer(&inbox)?, 2, 15);
        let first = delivery.deliver(message("k1"), WAIT_TIMEOUT).await?;
        assert!(first.sent_at.is_some(), "{first:?}");
        let again = delivery.deliver(message("k1"), WAIT_TIMEOUT).await?;
        assert_eq!(again, first);
        let mails = inbox.messages_to("anna@example.com").await?;
        assert_eq!(mails.len(), 1);
        assert_eq!(mails[0].message_id.trim_matches(['<', '>']), "k1@arch.homework");
        assert_eq!(mails[0].text.trim(), "Заказ успешно оформлен");

        let other = delivery.deliver(NewMessage { text: "else".to_owned(), ..message("k1") }, WAIT_TIMEOUT).await;
        assert!(matches!(other, Err(NotifyError::KeyReused)), "{other:?}");
        assert_eq!(log.find_by_login("anna").await?.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_is_retried_until_the_mail_server_accepts_the_message() -> Result<()> {
    with_log_on_both_databases(|log| async move {
        let directory = tempfile::tempdir()?;
        let mut inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), mailer(&inbox)?, 2, 15);
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        inbox.stop()?;
        let stored = delivery.deliver(message("k2"), WAIT_TIMEOUT).await?;
        assert_eq!((stored.sent_at, stored.attempts), (None, 1));
        assert!(stored.last_error.is_some(), "the log has the error");
        inbox.restart().await?;
        let sent = wait_for("the message to be sent", WAIT_TIMEOUT, || async {
            log.find_by_key("k2").await.ok().flatten().filter(|message| message.sent_at.is_some())
        })
        .await?;
        assert_eq!(sent.last_error, None);
        assert_eq!(inbox.messages().await?.len(), 1);
        running.abort();
        Ok(())
    })
    .await
}

/// The operator drops the call after 0.8 s. On a busy machine, the call may be at any point then.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_at_any_point_does_not_delay_the_message() -> Result<()> {
    with_log_on_both_databases(|log| async move {
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), mailer(&inbox)?, 2, 15).with_lease(LEASE);
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        for point in 0..60_u64 {
            let dropped_after = Duration::from_micros(point * point * 10);
            let _ = tokio::time::timeout(dropped_after, delivery.deliver(message(&point.to_string()), WAIT_TIMEOUT)).await;
        }
        // No message waits for the expiry of a lease.
        wait_for("all messages that were stored to be sent", WAIT_TIMEOUT, || async {
            let messages = log.find_by_login("anna").await.ok()?;
            (!messages.is_empty() && messages.iter().all(|message| message.sent_at.is_some())).then_some(())
        })
        .await?;
        running.abort();
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_given_up_after_the_last_attempt_and_resent_once_on_request() -> Result<()> {
    with_log_on_both_databases(|log| async move {
        let directory = tempfile::tempdir()?;
        let mut inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), mailer(&inbox)?, 2, 2);
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        inbox.stop()?;
        delivery.deliver(message("k"), WAIT_TIMEOUT).await?;
        let dead = wait_for("the message to be given up", WAIT_TIMEOUT, || async {
            log.find_by_key("k").await.ok().flatten().filter(|message| message.state() == State::DeadLettered)
        })
        .await?;
        assert_eq!(dead.attempts, 2);
        inbox.restart().await?;
        assert_eq!(log.claim_due(10, LEASE, &[]).await?, [], "no replica retries the message");
        assert_eq!(
            delivery.deliver(message("k"), WAIT_TIMEOUT).await?.state(),
            State::DeadLettered,
            "a repeated request changes nothing"
        );

        let resend = NewMessage { resends: 1, ..message("k") };
        assert_eq!(delivery.deliver(resend.clone(), WAIT_TIMEOUT).await?.state(), State::Sent);
        assert_eq!(delivery.deliver(resend, WAIT_TIMEOUT).await?.state(), State::Sent);
        assert_eq!(inbox.messages().await?.len(), 1);
        running.abort();
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_cancelled_halfway_does_not_affect_the_next_one() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let log = Log::new(
        Database::open_with_timeouts(
            &format!("sqlite://{}/n.db", directory.path().display()),
            2,
            MIGRATIONS,
            Timeouts::uniform(WAIT_TIMEOUT),
        )
        .await?,
    );
    let inbox = Inbox::start(directory.path()).await?;
    let mailer = mailer(&inbox)?;
    let mut messages = Vec::new();
    for key in ["k1", "k2", "k3"] {
        messages.push(log.store(&message(key), LEASE).await?.0);
    }
    mailer.send(&messages[0], || true).await?;
    inbox.suspend()?;
    let cancelled = tokio::time::timeout(Duration::from_millis(200), mailer.send(&messages[1], || true)).await;
    assert!(cancelled.is_err(), "a frozen server accepts nothing");
    inbox.resume()?;
    mailer.send(&messages[2], || true).await?;
    let arrived: Vec<_> = inbox.messages().await?.into_iter().map(|mail| mail.message_id).collect();
    assert_eq!(arrived, ["k1@arch.homework", "k3@arch.homework"], "each message that was sent has arrived");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_recorded_as_sent_is_not_sent_again() -> Result<()> {
    on_both_databases(|database| async move {
        let (forbid, allow) = match database.kind {
            Kind::Postgres => (
                "ALTER TABLE messages ADD CONSTRAINT refused CHECK (sent_at IS NULL)",
                "ALTER TABLE messages DROP CONSTRAINT refused",
            ),
            Kind::Sqlite => (
                "CREATE TRIGGER refused BEFORE UPDATE OF sent_at ON messages BEGIN SELECT RAISE(ABORT, 'refused'); END",
                "DROP TRIGGER refused",
            ),
        };
        sqlx::query(forbid).execute(&database.pool).await?;
        let log = Log::new(database.clone());
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), mailer(&inbox)?, 3, 15);
        delivery.accept(message("first")).await?;
        wait_for_mail(&inbox, "first").await?;
        // The lease of the first message expires. The second message, which is also due, shows that a
        // sweep has run.
        sqlx::query("UPDATE messages SET next_attempt_at = 0").execute(&database.pool).await?;
        let second = log.store(&message("second"), LEASE).await?.0;
        log.release(second.id).await?;
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        wait_for_mail(&inbox, "second").await?;
        sqlx::query(allow).execute(&database.pool).await?;
        wait_for("both messages to be recorded as sent", WAIT_TIMEOUT, || async {
            let messages = log.find_by_login("anna").await.ok()?;
            messages.iter().all(|message| message.state() == State::Sent).then_some(())
        })
        .await?;
        assert_eq!(inbox.messages().await?.len(), 2);
        running.abort();
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_never_lease_the_same_message_at_the_same_time() -> Result<()> {
    with_log_on_both_databases(|log| async move {
        let mut stored = Vec::new();
        for number in 0..40 {
            let (message, is_new) = log.store(&message(&format!("k{number}")), LEASE).await?;
            assert!(is_new);
            stored.push(message.id);
        }
        assert_eq!(log.claim_due(100, LEASE, &[]).await?, [], "the caller that stored the messages has the leases");
        for id in stored {
            log.release(id).await?;
        }
        let (one, other) = tokio::join!(log.claim_due(30, LEASE, &[]), log.claim_due(30, LEASE, &[]));
        let mut ids: Vec<i64> = one?.iter().chain(&other?).map(|message| message.id).collect();
        let claimed = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), claimed, "no message twice");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_message_of_a_batch_has_its_own_result() -> Result<()> {
    const NEW: usize = 320;
    with_log_on_both_databases(|log| async move {
        let stored_before = log.store(&message("known"), LEASE).await?.0;
        let (same, twice) = (message("known"), message("twice"));
        let other = NewMessage { text: "else".to_owned(), ..message("known") };
        let (repeated, other, twice) = tokio::join!(
            log.store(&same, LEASE),
            log.store(&other, LEASE),
            join_all([log.store(&twice, LEASE), log.store(&twice, LEASE)]),
        );
        assert_eq!(repeated?, (stored_before.clone(), false));
        assert!(matches!(other, Err(NotifyError::KeyReused)), "{other:?}");
        let twice = twice.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(twice[0].0, twice[1].0);
        assert_eq!(twice.iter().filter(|(_, is_new)| *is_new).count(), 1, "one of two concurrent requests stores the message");

        let keys: Vec<String> = (0..NEW).map(|number| format!("k{number}")).collect();
        let new: Vec<NewMessage> = keys.iter().map(|key| NewMessage { login: key.clone(), ..message(key) }).collect();
        let stored = try_join_all(new.iter().map(|new| log.store(new, LEASE))).await?;
        for ((stored, is_new), key) in stored.iter().zip(&keys) {
            assert_eq!((&stored.key, &stored.login, *is_new), (key, key, true));
            assert_eq!(log.find_by_id(stored.id).await?.as_ref(), Some(stored));
        }
        let ids = stored.iter().map(|(stored, _)| stored.id).chain([stored_before.id, stored_before.id]);
        let marked = try_join_all(ids.map(|id| log.mark_sent(id))).await?;
        for ((stored, _), marked) in stored.iter().zip(&marked) {
            assert_eq!(marked.as_ref().map(|message| (message.id, message.state())), Some((stored.id, State::Sent)));
        }
        assert_eq!(marked.iter().flatten().count(), NEW + 1, "a message that is marked twice is updated once");
        assert_eq!(log.find_by_key("twice").await?.map(|message| message.state()), Some(State::Delivering));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn concurrent_messages_share_transactions() -> Result<()> {
    const MESSAGES: i64 = 320;
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let log = Log::new(Database::open_with_timeouts(&postgres.url(), 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?);
    let new: Vec<NewMessage> = (0..MESSAGES).map(|number| message(&number.to_string())).collect();
    let before = postgres.written_transactions()?;
    let stored = try_join_all(new.iter().map(|new| log.store(new, LEASE))).await?;
    try_join_all(stored.iter().map(|(stored, _)| log.mark_sent(stored.id))).await?;
    let transactions = postgres.written_transactions()? - before;
    assert!(transactions <= MESSAGES as u64 / 10, "{MESSAGES} concurrent messages needed {transactions} transactions");
    Ok(())
}

#[tokio::test]
async fn messages_are_found_by_index_even_if_the_table_was_empty_when_the_statement_was_planned() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    // There is one connection, because each connection has its own plans and counters.
    let database = Database::open_with_timeouts(&postgres.url(), 1, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?;
    let log = Log::new(database.clone());
    for round in 0..20 {
        let new: Vec<NewMessage> = (0..16).map(|number| message(&format!("{round}-{number}"))).collect();
        let stored = try_join_all(new.iter().map(|new| log.store(new, LEASE))).await?;
        try_join_all(stored.iter().map(|(stored, _)| log.mark_sent(stored.id))).await?;
    }
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&database.pool).await?;
    let rows_scanned: i64 = sqlx::query_scalar("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'messages'")
        .fetch_one(&database.pool)
        .await?;
    assert_eq!(rows_scanned, 0, "no row is read by a sequential scan");
    Ok(())
}

#[tokio::test]
async fn the_lease_of_a_message_begins_when_the_message_is_stored_and_not_when_it_is_queued() -> Result<()> {
    let lease = Duration::from_secs(1);
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let database = Database::open_with_timeouts(&postgres.url(), 3, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?;
    let log = Log::new(database.clone());
    let mut lock_holder = database.pool.begin().await?;
    sqlx::query("LOCK TABLE messages").execute(&mut *lock_holder).await?;
    let (first, second) = (message("first"), message("second"));
    let unlock = async {
        // A lease that began with the request would have expired by then.
        tokio::time::sleep(2 * lease).await;
        let unlocking = jiff::Timestamp::now();
        lock_holder.commit().await.map(|()| unlocking)
    };
    let (first, second, unlocked) = tokio::join!(
        log.store(&first, lease),
        async {
            // The second message must not be in the same statement.
            wait_for("the first statement to wait for the lock", WAIT_TIMEOUT, || async {
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
                sqlx::query_scalar::<_, i64>(waiting).fetch_one(&database.pool).await.ok().filter(|count| *count > 0)
            })
            .await?;
            anyhow::Ok(log.store(&second, lease).await?)
        },
        unlock,
    );
    first?;
    let remaining = second?.0.next_attempt_at - unlocked?.as_microsecond();
    assert!(remaining >= lease.as_micros() as i64, "{remaining} µs remained of a lease of {lease:?}");
    Ok(())
}
