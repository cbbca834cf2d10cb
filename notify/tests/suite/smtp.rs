//! Delivery to mail servers that are slow, strict or short of patience, as public ones are.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use orders_notify::{
    delivery::{Delivery, LEASE},
    log::Log,
    mailer::{MailArgs, Mailer},
    message::{Message, State},
    smtp::SmtpTimeouts,
};
use orders_service::{
    database::{Database, Timeouts},
    shutdown::Shutdown,
};
use orders_testbed::{WAIT_TIMEOUT, wait_for};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::{
    mail_server::{Behaviour, MailServer},
    messages::{MIGRATIONS, message},
};

/// The arguments for a server on this port, with limits that a test never reaches.
pub fn arguments(url: &str) -> MailArgs {
    MailArgs {
        smtp_url: url.into(),
        smtp_ca_file: None,
        smtp_ehlo_name: None,
        smtp_timeouts: SmtpTimeouts::uniform(WAIT_TIMEOUT),
        mail_from: "My Shop <orders@shop.example.com>".to_owned(),
    }
}

/// A log in an SQLite file, and a delivery from it to the server.
struct Setup {
    log: Log,
    database: Database,
    delivery: Delivery,
    _directory: tempfile::TempDir,
}

async fn set_up(server: &MailServer) -> Result<Setup> {
    set_up_with(arguments(&format!("smtp://127.0.0.1:{}", server.port()))).await
}

async fn set_up_with(arguments: MailArgs) -> Result<Setup> {
    let directory = tempfile::tempdir()?;
    let url = format!("sqlite://{}", directory.path().join("notify.db").display());
    let database = Database::open_with_timeouts(&url, 10, MIGRATIONS, Timeouts::uniform(WAIT_TIMEOUT)).await?;
    let log = Log::new(database.clone());
    let delivery = Delivery::new(log.clone(), Mailer::new(&arguments)?, 2, 15);
    Ok(Setup { log, database, delivery, _directory: directory })
}

impl Setup {
    async fn deliver(&self, key: &str) -> Result<Message> {
        Ok(self.delivery.deliver(message(key), WAIT_TIMEOUT).await?)
    }

    async fn wait_sent(&self, key: &str) -> Result<Message> {
        wait_for(&format!("the message {key} to be sent"), WAIT_TIMEOUT, || async {
            self.log.find_by_key(key).await.ok().flatten().filter(|message| message.state() == State::Sent)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_a_message_after_several_leases_gets_it_once() -> Result<()> {
    let server = MailServer::start(Behaviour::default()).await?;
    let setup = set_up(&server).await?;
    let arguments = arguments(&format!("smtp://127.0.0.1:{}", server.port()));
    let other_replica = Delivery::new(Log::new(setup.database.clone()), Mailer::new(&arguments)?, 2, 15);
    let sweeping = [&setup.delivery, &other_replica].map(|replica| {
        let shutdown = Shutdown::on_signals().expect("signal handlers");
        tokio::spawn(replica.clone().run(shutdown))
    });
    server.hold_at(".");
    setup.delivery.accept(message("slow")).await?;
    // The lease was renewed after the first one would have expired, and the other replica has swept since.
    let stored = setup.log.find_by_key("slow").await?.expect("the message");
    let expiry = stored.created_at + LEASE.as_micros() as i64;
    wait_for("the renewal of the lease", WAIT_TIMEOUT, || async {
        let message = setup.log.find_by_key("slow").await.ok()??;
        let is_later = jiff::Timestamp::now().as_microsecond() > expiry + 3_000_000;
        (is_later && message.next_attempt_at > expiry).then_some(())
    })
    .await?;
    assert_eq!((server.seen().connections, server.count(".")), (1, 1), "{:?}", server.seen());
    server.release();
    let sent = setup.wait_sent("slow").await?;
    assert_eq!((sent.attempts, server.seen().messages.len()), (0, 1));
    sweeping.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_lease_was_lost_is_not_transferred() -> Result<()> {
    let server = MailServer::start(Behaviour::default()).await?;
    let setup = set_up(&server).await?;
    server.hold_at("DATA");
    setup.delivery.accept(message("k")).await?;
    wait_for("DATA", WAIT_TIMEOUT, || async { (server.count("DATA") == 1).then_some(()) }).await?;
    // This replica was suspended: another one has the lease now.
    let leased = jiff::Timestamp::now().as_microsecond() + 3_600_000_000;
    sqlx::query("UPDATE messages SET next_attempt_at = $1").bind(leased).execute(&setup.database.pool).await?;
    tokio::time::sleep(LEASE).await;
    server.release();
    setup.delivery.finish().await;
    assert_eq!(server.seen().messages, [""; 0]);
    let stored = setup.log.find_by_key("k").await?.expect("the message");
    assert_eq!((stored.attempts, stored.state(), stored.next_attempt_at), (0, State::Delivering, leased));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_greets_late_gets_the_message() -> Result<()> {
    let server = MailServer::start(Behaviour { greeting_delay: Duration::from_secs(6), ..Behaviour::default() }).await?;
    let sent = set_up(&server).await?.deliver("k").await?;
    assert_eq!((sent.state(), sent.attempts), (State::Sent, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_phase_has_its_own_limit_and_the_error_names_the_phase() -> Result<()> {
    for (silent_at, phase) in [("EHLO", "greeting"), ("MAIL", "MAIL"), ("RCPT", "RCPT"), ("DATA", "DATA"), (".", "message")] {
        let server = MailServer::start(Behaviour { silent_at: Some(silent_at), ..Behaviour::default() }).await?;
        let mut timeouts = SmtpTimeouts::uniform(WAIT_TIMEOUT);
        let limit = match phase {
            "greeting" => &mut timeouts.greeting,
            "DATA" => &mut timeouts.data,
            "message" => &mut timeouts.transfer,
            _ => &mut timeouts.command,
        };
        *limit = Duration::from_secs(1);
        let url = format!("smtp://127.0.0.1:{}", server.port());
        let setup = set_up_with(MailArgs { smtp_timeouts: timeouts, ..arguments(&url) }).await?;
        let failed = setup.deliver("k").await?;
        let error = failed.last_error.expect("an error");
        assert_eq!(error, format!("{phase}: no reply from the mail server within 1 s"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_introduces_itself_with_the_domain_of_the_sender_or_the_configured_name() -> Result<()> {
    for (configured, expected) in [(None, "EHLO shop.example.com"), (Some("relay.example.org"), "EHLO relay.example.org")] {
        let server = MailServer::start(Behaviour::default()).await?;
        let url = format!("smtp://127.0.0.1:{}", server.port());
        let arguments = MailArgs { smtp_ehlo_name: configured.map(str::to_owned), ..arguments(&url) };
        assert_eq!(set_up_with(arguments).await?.deliver("k").await?.state(), State::Sent);
        let seen = server.seen();
        assert_eq!(seen.commands[0], expected);
        assert_eq!(seen.commands[1], "MAIL FROM:<orders@shop.example.com>");
        assert!(seen.messages[0].contains("\nMIME-Version: 1.0\n"), "{}", seen.messages[0]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_server_ends_is_no_failed_attempt() -> Result<()> {
    for reply in [Some("421 4.7.0 too many messages on this connection"), None] {
        let behaviour = Behaviour { messages_per_connection: Some((1, reply)), ..Behaviour::default() };
        let server = MailServer::start(behaviour).await?;
        let setup = set_up(&server).await?;
        for key in ["first", "second", "third"] {
            let sent = setup.deliver(key).await?;
            assert_eq!((sent.state(), sent.attempts, sent.last_error), (State::Sent, 0, None), "{key} after {reply:?}");
        }
        assert_eq!((server.seen().connections, server.seen().messages.len()), (3, 3), "{reply:?}");
    }
    // On a new connection, it is one.
    let behaviour = Behaviour { messages_per_connection: Some((0, Some("421 4.3.2 not now"))), ..Behaviour::default() };
    let server = MailServer::start(behaviour).await?;
    let failed = set_up(&server).await?.deliver("k").await?;
    assert_eq!((failed.state(), failed.attempts, server.seen().connections), (State::Delivering, 1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_address_that_does_not_exist_is_given_up_at_once() -> Result<()> {
    for (recipient_reply, expected) in [
        ("550 5.1.1 no such user", State::DeadLettered),
        ("550-5.1.1 no such user\r\n550 5.1.1 see the manual", State::DeadLettered),
        ("556 5.1.10 the domain accepts no mail", State::DeadLettered),
        ("550 5.7.1 refused by policy", State::Delivering),
        ("552 5.2.2 the mailbox is full", State::Delivering),
        ("550 5.2.1 the mailbox is disabled", State::Delivering),
        ("550 5.1.8 bad sender", State::Delivering),
        ("550 no", State::Delivering),
        ("450 4.1.1 try again", State::Delivering),
    ] {
        let server = MailServer::start(Behaviour { recipient_reply, ..Behaviour::default() }).await?;
        let setup = set_up(&server).await?;
        let stored = setup.deliver("k").await?;
        assert_eq!((stored.state(), stored.attempts), (expected, 1), "{recipient_reply}");
        let error = stored.last_error.expect("an error");
        assert!(error.starts_with("RCPT: "), "{error}");
        assert!(error.contains(recipient_reply[4..].split("\r\n").next().unwrap_or_default()), "{error}");
    }
    // Some servers look the address up only after they have the message.
    let server = MailServer::start(Behaviour { message_reply: "550 5.1.1 no such user", ..Behaviour::default() }).await?;
    assert_eq!(set_up(&server).await?.deliver("k").await?.state(), State::DeadLettered);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_a_private_authority_is_trusted_by_file() -> Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let server = MailServer::start(Behaviour { tls: Some(TlsAcceptor::from(Arc::new(tls))), ..Behaviour::default() }).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, cert.pem())?;

    let url = format!("smtps://localhost:{}", server.port());
    let distrusted = set_up_with(arguments(&url)).await?.deliver("k").await?;
    assert_eq!((distrusted.state(), server.count("EHLO")), (State::Delivering, 0));
    let trusted = set_up_with(MailArgs { smtp_ca_file: Some(file.clone()), ..arguments(&url) }).await?;
    assert_eq!(trusted.deliver("k").await?.state(), State::Sent);

    std::fs::write(&file, "no PEM")?;
    for bad in [file, directory.path().join("missing.pem")] {
        let error = Mailer::new(&MailArgs { smtp_ca_file: Some(bad), ..arguments(&url) }).err().expect("an error");
        assert!(format!("{error:#}").contains("SMTP_CA_FILE"), "{error:#}");
    }
    Ok(())
}
