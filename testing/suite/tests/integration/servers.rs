//! Tests of the testbed's servers, on which the other tests rely.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull, stream};
use futures::StreamExt;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use lettre::message::header::ContentType;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use orders_contracts::topology;
use orders_service::broker::streams;
use orders_testbed::{Cluster, Inbox, Nats, NatsOptions, Postgres, service_account_token};
use strum::IntoEnumIterator;

#[tokio::test]
async fn the_inbox_separates_the_messages_of_one_connection() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut inbox = Inbox::start(directory.path()).await?;
    let port = inbox.smtp_url().rsplit(':').next().unwrap_or_default().parse()?;
    let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(port)
        .pool_config(PoolConfig::new().max_size(1))
        .build();
    let address: String = "aurore@example.com".to_owned();
    for number in 1..=2 {
        let message = Message::builder()
            .from("orders@arch.homework".parse()?)
            .to(address.parse()?)
            .message_id(Some(format!("<{number}@arch.homework>")))
            .subject(format!("Grüße {number}"))
            .header(ContentType::TEXT_PLAIN)
            // SMTP sends a line that starts with a dot with two dots.
            .body(format!("Body {number}\r\n.dot"))?;
        mailer.send(message).await?;
    }
    let messages = inbox.messages_to(&address).await?;
    assert_eq!(messages.len(), 2);
    for (number, message) in (1..).zip(&messages) {
        assert_eq!(message.id, number);
        assert_eq!(message.message_id, format!("{number}@arch.homework"));
        assert_eq!(message.from, "orders@arch.homework");
        assert_eq!(message.to, std::slice::from_ref(&address));
        assert_eq!(message.subject, format!("Grüße {number}"));
        assert_eq!(message.text, format!("Body {number}\r\n.dot\r\n"));
        assert!(message.raw.starts_with("From: "), "{}", message.raw);
    }

    inbox.clear().await?;
    assert!(inbox.messages().await?.is_empty());
    inbox.stop()?;
    assert!(mailer.test_connection().await.is_err());
    inbox.restart().await?;
    assert!(inbox.messages().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn postgres_keeps_its_data_across_a_restart() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut postgres = Postgres::start(directory.path()).await?;
    postgres.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)")?;
    postgres.stop().await?;
    assert!(postgres.query("SELECT 1").is_err());
    postgres.restart().await?;
    assert_eq!(postgres.query("SELECT sum(n) FROM t")?, "3");
    assert!(postgres.database("other")?.ends_with("/other"));
    assert_eq!(postgres.query("SHOW server_encoding")?, "UTF8");
    Ok(())
}

/// Connects as one of the broker's users, as the services do.
async fn connect(nats: &Nats, user: &str) -> Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), nats.password(user).to_owned());
    let options = options.custom_inbox_prefix(format!("_INBOX.{user}")).request_timeout(Some(Duration::from_secs(2)));
    Ok(options.connect(nats.url()).await?)
}

fn stream_config(name: &str, subjects: &[&str]) -> stream::Config {
    let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
    stream::Config { name: name.to_owned(), subjects, ..stream::Config::default() }
}

#[tokio::test]
async fn nats_keeps_its_messages_across_a_kill() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut nats = Nats::start(directory.path()).await?;
    let client = connect(&nats, "admin").await?;
    let context = jetstream::new(client.clone());
    context.create_stream(stream_config("KEPT", &["kept"])).await?;
    context.publish("kept", "one".into()).await?.await?;

    nats.stop()?;
    assert!(nats.process().is_err());
    assert!(connect(&nats, "admin").await.is_err());
    nats.restart().await?;
    let client = connect(&nats, "admin").await?;
    let context = jetstream::new(client.clone());
    let kept = context.get_stream("KEPT").await?;
    assert_eq!(kept.get_raw_message(1).await?.payload, "one");

    nats.suspend()?;
    let publish = async { anyhow::Ok(context.publish("kept", "two".into()).await?.await?) };
    assert!(!matches!(tokio::time::timeout(Duration::from_secs(1), publish).await, Ok(Ok(_))));
    nats.resume()?;
    context.publish("kept", "three".into()).await?.await?;
    Ok(())
}

#[tokio::test]
async fn nats_stores_no_more_than_its_limit() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let nats = Nats::start_with(directory.path(), NatsOptions { max_store: Some("64KB".to_owned()) }).await?;
    let context = jetstream::new(connect(&nats, "admin").await?);
    context.create_stream(stream_config("FULL", &["full"])).await?;
    let mut stored = 0;
    while context.publish("full", vec![b'x'; 8 * 1024].into()).await?.await.is_ok() {
        stored += 1;
        assert!(stored < 10, "64 KB hold no ten messages of 8 KB");
    }
    assert!(stored > 5, "{stored}");
    Ok(())
}

#[tokio::test]
async fn each_service_may_publish_only_on_its_own_subjects() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let nats = Nats::start(directory.path()).await?;
    let subjects = [
        ("operator", "orders.payment.requested"),
        ("billing", "orders.payment.decided"),
        ("operator", "orders.decided"),
        ("notify", "orders.notification.changed"),
        ("operator", "orders.dead.operator"),
        ("billing", "orders.dead.billing"),
        ("notify", "orders.dead.notify"),
    ];
    let admin = connect(&nats, "admin").await?;
    let mut subscription = admin.subscribe("orders.>").await?;
    admin.flush().await?;
    for user in ["operator", "billing", "notify"] {
        let client = connect(&nats, user).await?;
        for (owner, subject) in subjects {
            client.publish(subject, owner.into()).await?;
        }
        client.flush().await?;
        let expected: Vec<&str> = subjects.iter().filter(|(owner, _)| *owner == user).map(|(_, subject)| *subject).collect();
        for subject in expected {
            let message = subscription.next().await.context("the subscription ended")?;
            assert_eq!((message.subject.as_str(), &message.payload[..]), (subject, user.as_bytes()));
        }
        // A service may subscribe only to the replies to its own requests.
        let mut others = client.subscribe("orders.>").await?;
        client.flush().await?;
        admin.publish("orders.decided", "admin".into()).await?;
        admin.flush().await?;
        assert_eq!(subscription.next().await.context("the subscription ended")?.payload, "admin");
        assert!(tokio::time::timeout(Duration::from_millis(300), others.next()).await.ok().flatten().is_none(), "{user}");
    }
    let wrong = async_nats::ConnectOptions::with_user_and_password("billing".into(), nats.password("notify").into());
    assert!(wrong.connect(nats.url()).await.is_err(), "the passwords differ");
    Ok(())
}

#[tokio::test]
async fn each_service_may_consume_only_from_its_own_streams() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let nats = Nats::start(directory.path()).await?;
    let own = [topology::OPERATOR_OUTCOMES, topology::OPERATOR_NOTIFICATIONS, topology::BILLING, topology::NOTIFY];
    let admin = jetstream::new(connect(&nats, "admin").await?);
    for user in ["operator", "billing", "notify"] {
        let client = connect(&nats, user).await?;
        // A forbidden request gets no reply at all.
        let refused = jetstream::ContextBuilder::new().timeout(Duration::from_secs(1)).build(client.clone());
        let context = jetstream::new(client);
        assert!(refused.create_stream(stream_config("OTHER", &["other"])).await.is_err(), "{user} creates a stream");
        for stream in topology::Stream::iter() {
            // The first service creates the streams; later ones update them.
            let name = stream.name();
            context.create_or_update_stream(streams::stream_config(stream)).await?;
            let filters = own.iter().find(|own| (own.service.name(), own.stream) == (user, stream)).map(|own| own.subjects);
            let mut config = pull::Config { durable_name: Some(user.to_owned()), ..pull::Config::default() };
            // Requests with one filter and with several filters use different subjects.
            match filters {
                None => config.filter_subject = stream.subjects()[0].to_owned(),
                Some([one]) => config.filter_subject = (*one).to_owned(),
                Some(all) => config.filter_subjects = all.iter().map(|subject| (*subject).to_owned()).collect(),
            }
            let context = if filters.is_some() { &context } else { &refused };
            let consumer = context.create_consumer_on_stream(config, name).await;
            let Some(filters) = filters else {
                assert!(consumer.is_err(), "{user} consumes from {name}");
                continue;
            };
            let mut consumer = consumer.with_context(|| format!("{user} cannot consume from {name}"))?;
            let sequence = admin.publish(filters[0], user.into()).await?.await?.sequence;
            let mut messages = consumer.messages().await?;
            loop {
                let message = messages.next().await.context("no message")??;
                message.double_ack().await.map_err(|error| anyhow::anyhow!(error))?;
                if consumer.info().await?.ack_floor.stream_sequence == sequence {
                    break;
                }
            }
        }
        assert!(refused.delete_stream("ORDERS-PAYMENTS").await.is_err(), "{user} deletes a stream");
    }
    Ok(())
}

#[tokio::test]
async fn the_shared_control_plane_issues_tokens_of_one_audience() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let client = cluster.client().await?;
    let namespace = cluster.namespace("tokens").await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("token");
    let user = service_account_token(&client, &namespace, "operator", "orders-billing", &file).await?;
    assert_eq!(user, format!("system:serviceaccount:{namespace}:operator"));

    let review = |audience: &str| TokenReview {
        spec: TokenReviewSpec {
            audiences: Some(vec![audience.to_owned()]),
            token: std::fs::read_to_string(&file).unwrap_or_default(),
        },
        ..TokenReview::default()
    };
    let reviews = Api::<TokenReview>::all(client);
    let own = reviews.create(&PostParams::default(), &review("orders-billing")).await?;
    let other = reviews.create(&PostParams::default(), &review("orders-notify")).await?;
    let authenticated = |review: TokenReview| review.status.and_then(|status| status.authenticated);
    assert_eq!(authenticated(own), Some(true));
    assert_ne!(authenticated(other), Some(true));
    Ok(())
}

#[tokio::test]
async fn a_private_control_plane_survives_its_api_server() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::private(directory.path()).await?;
    let client = cluster.client().await?;
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    let map =
        ConfigMap { metadata: ObjectMeta { name: Some("kept".to_owned()), ..ObjectMeta::default() }, ..ConfigMap::default() };
    maps.create(&PostParams::default(), &map).await?;
    cluster.kill_api_server()?;
    let response = tokio::time::timeout(Duration::from_secs(2), maps.get("kept")).await;
    assert!(!matches!(response, Ok(Ok(_))));
    cluster.start_api_server().await?;
    maps.get("kept").await?;
    cluster.suspend_api_server()?;
    assert!(tokio::time::timeout(Duration::from_secs(1), maps.get("kept")).await.is_err());
    cluster.resume_api_server()?;
    maps.get("kept").await?;
    Ok(())
}
