//! Tests of the messages over the broker: they match the AsyncAPI documents, only authorized services read them,
//! and none is lost or processed twice, even if the style of interaction changes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::{ConnectOptions, jetstream};
use futures::StreamExt;
use orders_contracts::{asyncapi, topology};
use orders_crds::{ConditionType, Order, Outcome, conditions};
use orders_service::broker::dead_letters::DeadLetters;
use orders_shop::{Interaction, Stack, StackOptions};
use orders_testbed::{Cluster, Nats, Signal, wait_for};
use serde_json::{Value, json};

use crate::shop::{Shop, WAIT_TIMEOUT, interaction, name, was_notified_slowly};

/// A subject to which only tests publish. A message on it arrives after all messages that were published before.
const END: &str = "orders.end-of-test";

const STYLES: [Interaction; 2] = [Interaction::NotifyBroker, Interaction::Broker];

/// Connects as the administrator, who may publish and subscribe to all subjects.
async fn connect_admin(nats: &Nats) -> Result<async_nats::Client> {
    let options = ConnectOptions::with_user_and_password("admin".to_owned(), nats.password("admin").to_owned());
    Ok(options.connect(nats.url()).await?)
}

/// The schema of the messages on a subject, from a style's AsyncAPI document.
fn find_schema(document: &Value, subject: &str) -> Result<Value> {
    let channels = document["channels"].as_object().context("channels")?;
    let channel = channels.values().find(|channel| channel["address"] == subject);
    let channel = channel.with_context(|| format!("{subject} is in no document"))?;
    let message = channel["messages"].as_object().and_then(|messages| messages.keys().next()).context("a message")?;
    let mut payload = document["components"]["messages"][message]["payload"].clone();
    payload["properties"]["data"] = document["components"]["schemas"][message].clone();
    Ok(payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_matches_the_asyncapi_documents() -> Result<()> {
    for style in STYLES {
        let document = asyncapi::document(style).context("a document")?;
        let shop = Shop::start_with_style(style, &Cluster::control_plane().await?, |options| options).await?;
        let nats = shop.nats.as_ref().context("a broker")?;
        shop.open_account("nora", json!(500)).await?;
        // After this order is paid, every service is subscribed, and earlier messages have been repeated.
        assert_eq!(shop.place_order("nora", json!(100)).await?.status, 200);
        let warm_up_orders = shop.wait_settled().await?.len();
        let client = connect_admin(nats).await?;
        let mut subscription = client.subscribe("orders.>").await?;
        client.flush().await?;
        assert_eq!(shop.place_order("nora", json!(100)).await?.status, 200);
        assert_eq!(shop.place_order("nora", json!(1000)).await?.status, 400);
        shop.place_order("nobody", json!(5)).await?.assert_problem(404);
        let settled = shop.wait_settled().await?;
        assert_eq!(settled.len(), warm_up_orders + 3);

        client.publish(END, "".into()).await?;
        let mut messages = Vec::new();
        loop {
            let message = tokio::time::timeout(WAIT_TIMEOUT, subscription.next()).await?.context("the subscription ended")?;
            if *message.subject == *END {
                break;
            }
            let payload: Value = serde_json::from_slice(&message.payload)?;
            let schema = find_schema(&document, &message.subject)?;
            if let Err(error) = jsonschema::validate(&schema, &payload) {
                panic!("{} in {}: {error}: {payload}", message.subject, style.as_str());
            }
            messages.push((message.subject.to_string(), payload["data"]["key"].to_string()));
        }
        // Slow requests are repeated, so there are more messages.
        if settled.iter().any(was_notified_slowly) {
            messages.sort();
            messages.dedup();
        }
        let count = |subject: &str| messages.iter().filter(|(other, _)| other == subject).count();
        let expected = if style == Interaction::Broker { [3, 3, 0, 3] } else { [0, 0, 3, 3] };
        let counts =
            ["orders.payment.requested", "orders.payment.decided", "orders.decided", "orders.notification.changed"].map(count);
        assert_eq!(counts, expected, "one message of each kind for each order, {}", style.as_str());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_earlier_version_gets_new_subjects_and_keeps_its_settings() -> Result<()> {
    let mut shop = Shop::start_with_style(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.open_account("otto", json!(500)).await?;
    let id = shop.place_order("otto", json!(100)).await?.id();
    let nats = shop.nats.as_ref().context("a broker")?;
    let jetstream = jetstream::new(connect_admin(nats).await?);
    let name = topology::Stream::Payments.name();
    shop.stack.billing.kill()?;
    jetstream.delete_consumer_from_stream("billing", name).await?;
    let mut earlier = jetstream.get_stream(name).await?.cached_info().config.clone();
    earlier.subjects = vec![topology::PAYMENT_REQUESTED.to_owned()];
    earlier.max_bytes = 1024 * 1024;
    jetstream.update_stream(earlier).await?;

    shop.stack.billing.restart().await?;
    let cancelled =
        shop.send(shop.request(reqwest::Method::POST, &format!("/orders/{id}/cancel")).header("prefer", "wait=30")).await?;
    assert_eq!(cancelled.json()["reason"], "Refunded", "{cancelled:?}");
    let config = jetstream.get_stream(name).await?.cached_info().config.clone();
    assert_eq!((config.subjects.len(), config.max_bytes), (3, 1024 * 1024), "manual settings are kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_can_be_listed_and_replayed() -> Result<()> {
    let shop = Shop::start_with_style(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.open_account("dina", json!(500)).await?;
    let nats = shop.nats.as_ref().context("a broker")?;
    let stream = jetstream::new(connect_admin(nats).await?);
    let event = |data: Value| {
        json!({"specversion": "1.0", "id": "1", "source": "/test", "type": "homework.arch.orders.payment.requested.v1",
               "subject": "k", "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": data})
    };
    let good = json!({"key": "k", "login": "dina", "email": "dina@example.com", "amount": "10.00"});
    let with = |field: &str, value: Value| {
        let mut data = good.clone();
        data[field] = value;
        event(data).to_string()
    };
    let bad = [
        "garbage".to_owned(),
        event(json!({})).to_string(),
        with("amount", json!("-10.00")),
        with("amount", json!("0.00")),
        with("amount", json!("99999999999999999999.00")),
        with("login", json!("a b")),
        with("email", json!("nobody")),
        with("key", json!("of another")),
        event(good.clone()).to_string().replace("requested.v1", "requested.v2"),
    ];
    for payload in &bad {
        stream.publish("orders.payment.requested", payload.clone().into()).await?.await?;
    }
    let letters = DeadLetters::connect(&nats.url(), &nats.password("admin").to_owned().into()).await?;
    let dead = wait_for("a dead letter for each message", WAIT_TIMEOUT, || async {
        letters.list().await.ok().filter(|letters| letters.len() == bad.len())
    })
    .await?;
    for letter in &dead {
        assert_eq!((letter.service.as_str(), letter.subject.as_str()), ("billing", "orders.payment.requested"));
        assert!(letter.reason.len() > 5, "it has a reason: {letter:?}");
    }
    assert_eq!(shop.balance("dina").await?, "500.0", "no amount was charged");
    assert_eq!(shop.place_order("dina", json!(100)).await?.status, 200, "billing continues");

    // A replayed message is handled like any other. This one is still invalid, so it becomes a dead letter again.
    letters.replay(&dead[0]).await?;
    let again = wait_for("the dead letter of the replayed message", WAIT_TIMEOUT, || async {
        letters.list().await.ok().filter(|letters| letters.len() == bad.len())
    })
    .await?;
    assert_eq!(again.last().map(|letter| &letter.payload), Some(&dead[0].payload));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_style_can_be_changed_with_orders_in_flight() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let mut shop = Shop::start_with_style(Interaction::Http, &cluster, |options| options).await?;
    shop.open_account("sven", json!(1000)).await?;
    let nats = Nats::start(shop.directory.path()).await?;
    let mut ids = Vec::new();
    for (round, style) in
        [Interaction::Broker, Interaction::NotifyBroker, Interaction::Broker, Interaction::Http].into_iter().enumerate()
    {
        for number in 0..10 {
            let order = shop.order_request("sven", json!(10)).header("prefer", "respond-async");
            let order = order.header("idempotency-key", format!("{round}-{number}"));
            ids.push(shop.send(order).await?.id());
        }
        // As in an upgrade, the old processes stop and new ones start with the same databases.
        for service in [&shop.stack.billing, &shop.stack.notify, &shop.stack.api_server].into_iter().chain(&shop.stack.operators)
        {
            service.kill()?;
        }
        let options = StackOptions { interaction: style, nats: Some(nats.access()), ..shop.options.clone() };
        let namespace = shop.stack.namespace.clone();
        shop.stack = Stack::start_in(&cluster, &namespace, shop.directory.path(), options).await?;
    }
    let orders = shop.wait_settled().await?;
    assert_eq!(orders.len(), 40);
    assert!(orders.iter().all(|order| order.outcome() == Outcome::Paid));
    assert_eq!(shop.balance("sven").await?, "600.0", "each charged once");
    assert_eq!(shop.messages("sven").await?.len(), 40, "one message for each order");
    assert_eq!(shop.orders().get(&name(ids[0])).await?.outcome(), Outcome::Paid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_continues_as_soon_as_notify_publishes_the_state_of_its_message() -> Result<()> {
    for style in STYLES {
        let shop = Shop::start_with_style(style, &Cluster::control_plane().await?, |options| options).await?;
        shop.open_account("lara", json!(5000)).await?;
        assert_eq!(shop.place_order("lara", json!(100)).await?.status, 200);
        shop.wait_settled().await?;
        // On a slow machine, the messages may not arrive within one pause, so the test may retry.
        let mut attempts = 0;
        while !settles_before_the_next_attempt(&shop).await? {
            attempts += 1;
            ensure!(attempts < 5, "{attempts} orders settled only after their next attempt, {}", style.as_str());
        }
    }
    Ok(())
}

/// Places an order while notify is suspended, and resumes notify in a long pause between two attempts. Returns whether
/// the order settled in that pause.
async fn settles_before_the_next_attempt(shop: &Shop) -> Result<bool> {
    let client = connect_admin(shop.nats.as_ref().context("a broker")?).await?;
    let mut subscription = client.subscribe("orders.>").await?;
    client.flush().await?;

    shop.stack.notify.process.signal(Signal::STOP)?;
    let id = shop.send(shop.order_request("lara", json!(100)).header("prefer", "respond-async")).await?.id();
    // After this attempt, the operator pauses for eight seconds before the next request.
    let requests = 5;
    let retry = |order: &Order| order.status.as_ref().and_then(|status| status.retry.clone());
    let waiting = shop
        .wait_order(&name(id), "retrying its notification", |order| retry(order).is_some_and(|retry| retry.attempts >= requests))
        .await?;
    shop.stack.notify.process.signal(Signal::CONT)?;
    shop.wait_settled().await?;
    let status = shop.orders().get(&name(id)).await?.status.context("a status")?;
    let notified_at =
        conditions::find(&status.conditions, ConditionType::Notified).context("a condition")?.last_transition_time.0;
    // Kubernetes stores times in whole seconds.
    if notified_at + Duration::from_secs(1) >= retry(&waiting).context("a retry")?.next_attempt_time.0 {
        return Ok(false);
    }
    client.publish(END, "".into()).await?;
    let mut published = 0;
    loop {
        let message = tokio::time::timeout(WAIT_TIMEOUT, subscription.next()).await?.context("the subscription ended")?;
        match &*message.subject {
            END => break,
            topology::DECIDED => published += 1,
            _ => {}
        }
    }
    assert_eq!(published, requests, "no request is repeated after the reply");
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_services_finish_their_work_and_exit_successfully() -> Result<()> {
    let mut shop = Shop::start_with_style(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.open_account("greta", json!(1000)).await?;
    for round in 0..2 {
        for _ in 0..10 {
            let order = shop.order_request("greta", json!(10)).header("prefer", "respond-async");
            assert_eq!(shop.send(order).await?.status, 202);
        }
        let stack = &mut shop.stack;
        for service in [&mut stack.billing, &mut stack.notify, &mut stack.operators[0]] {
            let status = service.process.terminate(WAIT_TIMEOUT).await?;
            assert!(status.success(), "round {round}: {status}: {}", service.process.output());
            assert!(!service.process.output().contains("panicked"), "{}", service.process.output());
            service.restart().await?;
        }
    }
    let orders = shop.wait_settled().await?;
    assert!(orders.len() == 20 && orders.iter().all(|order| order.outcome() == Outcome::Paid));
    assert_eq!(shop.balance("greta").await?, "800.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_runs_in_the_style_of_the_environment() -> Result<()> {
    let shop = Shop::start().await?;
    assert_eq!(shop.nats.is_some(), interaction() != Interaction::Http);
    Ok(())
}
