//! The servers that other tests rely on, tried for real.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use lettre::message::header::ContentType;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use orders_testbed::{Cluster, Inbox, Postgres, service_account_token};

#[tokio::test]
async fn the_inbox_keeps_messages_of_one_connection_apart() -> Result<()> {
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
            // A line that starts with a dot is sent with two.
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
    inbox.start_again().await?;
    assert!(inbox.messages().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn postgres_keeps_its_data_over_a_stop() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut postgres = Postgres::start(directory.path()).await?;
    postgres.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)")?;
    postgres.stop().await?;
    assert!(postgres.query("SELECT 1").is_err());
    postgres.start_again().await?;
    assert_eq!(postgres.query("SELECT sum(n) FROM t")?, "3");
    assert!(postgres.database("other")?.ends_with("/other"));
    assert_eq!(postgres.query("SHOW server_encoding")?, "UTF8");
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
    let answer = tokio::time::timeout(Duration::from_secs(2), maps.get("kept")).await;
    assert!(!matches!(answer, Ok(Ok(_))));
    cluster.start_api_server().await?;
    maps.get("kept").await?;
    cluster.freeze_api_server()?;
    assert!(tokio::time::timeout(Duration::from_secs(1), maps.get("kept")).await.is_err());
    cluster.thaw_api_server()?;
    maps.get("kept").await?;
    Ok(())
}
