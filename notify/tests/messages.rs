//! Messages: stored once, delivered to a real mail server, on both databases.

use std::{future::Future, time::Duration};

use anyhow::Result;
use orders_notify::{
    delivery::Delivery,
    error::NotifyError,
    log::{Log, MIGRATIONS, NewMessage, State},
    mailer::Mailer,
};
use orders_service::{database::Database, shutdown::Shutdown};
use orders_testbed::{Inbox, Postgres, wait_for};

const PATIENCE: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(60);

/// Runs a test on SQLite and on PostgreSQL, each with a database of its own.
async fn on_both<F, Fut>(test: F) -> Result<()>
where
    F: Fn(Log) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let directory = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", directory.path().join("notify.db").display());
    test(Log::new(Database::open(&sqlite, 10, MIGRATIONS).await?)).await?;
    let postgres = Postgres::start(directory.path()).await?;
    test(Log::new(Database::open(&postgres.url(), 10, MIGRATIONS).await?)).await
}

fn message(key: &str) -> NewMessage {
    NewMessage {
        key: key.to_owned(),
        login: "anna".to_owned(),
        email: "anna@example.com".to_owned(),
        text: "Заказ успешно оформлен".to_owned(),
        resends: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_delivered_once_for_its_key_with_an_id_that_follows_from_it() -> Result<()> {
    on_both(|log| async move {
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), Mailer::new(&inbox.smtp_url(), "orders@arch.homework")?, 2, 15);
        let first = delivery.deliver(message("k1"), PATIENCE).await?;
        assert!(first.sent_at.is_some(), "{first:?}");
        let again = delivery.deliver(message("k1"), PATIENCE).await?;
        assert_eq!(again, first);
        let mails = inbox.messages_to("anna@example.com").await?;
        assert_eq!(mails.len(), 1);
        assert_eq!(mails[0].message_id.trim_matches(['<', '>']), "k1@arch.homework");
        assert_eq!(mails[0].text.trim(), "Заказ успешно оформлен");

        let other = delivery.deliver(NewMessage { text: "else".to_owned(), ..message("k1") }, PATIENCE).await;
        assert!(matches!(other, Err(NotifyError::KeyReused)), "{other:?}");
        assert_eq!(log.of_login("anna").await?.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mail_server_did_not_take_is_tried_until_it_does() -> Result<()> {
    on_both(|log| async move {
        let directory = tempfile::tempdir()?;
        let mut inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), Mailer::new(&inbox.smtp_url(), "orders@arch.homework")?, 2, 15);
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        inbox.stop()?;
        let stored = delivery.deliver(message("k2"), PATIENCE).await?;
        assert_eq!((stored.sent_at, stored.attempts), (None, 1));
        assert!(stored.last_error.is_some(), "the log says why");
        inbox.start_again().await?;
        let sent = wait_for("the message to be sent", Duration::from_secs(20), || async {
            log.find("k2").await.ok().flatten().filter(|message| message.sent_at.is_some())
        })
        .await?;
        assert_eq!(sent.last_error, None);
        assert_eq!(inbox.messages().await?.len(), 1);
        running.abort();
        Ok(())
    })
    .await
}

/// The operator hangs up after 0.8 s; a busy machine may be anywhere in it then.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_at_any_point_does_not_hold_up_the_message() -> Result<()> {
    on_both(|log| async move {
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), Mailer::new(&inbox.smtp_url(), "orders@arch.homework")?, 2, 15);
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        for point in 0..60_u64 {
            let patience = Duration::from_micros(point * point * 10);
            let _ = tokio::time::timeout(patience, delivery.deliver(message(&point.to_string()), PATIENCE)).await;
        }
        // Well before a lease of fifteen seconds has run out.
        wait_for("all messages that were stored to be sent", Duration::from_secs(8), || async {
            let messages = log.of_login("anna").await.ok()?;
            (!messages.is_empty() && messages.iter().all(|message| message.sent_at.is_some())).then_some(())
        })
        .await?;
        running.abort();
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_given_up_after_so_many_attempts_and_sent_again_on_request_once() -> Result<()> {
    on_both(|log| async move {
        let directory = tempfile::tempdir()?;
        let mut inbox = Inbox::start(directory.path()).await?;
        let delivery = Delivery::new(log.clone(), Mailer::new(&inbox.smtp_url(), "orders@arch.homework")?, 2, 2);
        let running = tokio::spawn(delivery.clone().run(Shutdown::on_signals()?));
        inbox.stop()?;
        delivery.deliver(message("k"), PATIENCE).await?;
        let dead = wait_for("the message to be given up", Duration::from_secs(20), || async {
            log.find("k").await.ok().flatten().filter(|message| message.state() == State::DeadLettered)
        })
        .await?;
        assert_eq!(dead.attempts, 2);
        inbox.start_again().await?;
        assert_eq!(log.claim_due(10, LEASE).await?, [], "nobody tries it any more");
        assert_eq!(delivery.deliver(message("k"), PATIENCE).await?.state(), State::DeadLettered, "a repeat changes nothing");

        let again = NewMessage { resends: 1, ..message("k") };
        assert_eq!(delivery.deliver(again.clone(), PATIENCE).await?.state(), State::Sent);
        assert_eq!(delivery.deliver(again, PATIENCE).await?.state(), State::Sent);
        assert_eq!(inbox.messages().await?.len(), 1);
        running.abort();
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_given_up_half_way_leaves_nothing_behind_for_the_next() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let log = Log::new(Database::open(&format!("sqlite://{}/n.db", directory.path().display()), 2, MIGRATIONS).await?);
    let inbox = Inbox::start(directory.path()).await?;
    let mailer = Mailer::new(&inbox.smtp_url(), "orders@arch.homework")?;
    let mut messages = Vec::new();
    for key in ["k1", "k2", "k3"] {
        messages.push(log.store(&message(key), LEASE).await?.0);
    }
    mailer.send(&messages[0]).await?;
    inbox.freeze()?;
    let given_up = tokio::time::timeout(Duration::from_millis(200), mailer.send(&messages[1])).await;
    assert!(given_up.is_err(), "a frozen server accepts nothing");
    inbox.thaw()?;
    mailer.send(&messages[2]).await?;
    let arrived: Vec<_> = inbox.messages().await?.into_iter().map(|mail| mail.message_id).collect();
    assert_eq!(arrived, ["k1@arch.homework", "k3@arch.homework"], "what counts as sent has arrived");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_never_have_the_same_message_at_once() -> Result<()> {
    on_both(|log| async move {
        let mut stored = Vec::new();
        for number in 0..40 {
            let (message, is_new) = log.store(&message(&format!("k{number}")), LEASE).await?;
            assert!(is_new);
            stored.push(message.id);
        }
        assert_eq!(log.claim_due(100, LEASE).await?, [], "whoever stored them has them");
        for id in stored {
            log.release(id).await?;
        }
        let (one, other) = tokio::join!(log.claim_due(30, LEASE), log.claim_due(30, LEASE));
        let mut ids: Vec<i64> = one?.iter().chain(&other?).map(|message| message.id).collect();
        let claimed = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), claimed, "no message twice");
        Ok(())
    })
    .await
}
