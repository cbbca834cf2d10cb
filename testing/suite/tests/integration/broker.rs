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

use crate::shop::{SOON, Shop, interaction, name, was_told_slowly};

/// A subject to which only tests publish. A message on it arrives after all messages that were published before.
const END: &str = "orders.end-of-test";

const STYLES: [Interaction; 2] = [Interaction::NotifyBroker, Interaction::Broker];

/// Connects as the administrator, who may publish and subscribe to all subjects.
async fn admin(nats: &Nats) -> Result<async_nats::Client> {
    let options = ConnectOptions::with_user_and_password("admin".to_owned(), nats.password("admin").to_owned());
    Ok(options.connect(nats.url()).await?)
}

/// The schema of the messages on a subject, from a style's AsyncAPI document.
fn schema(document: &Value, subject: &str) -> Result<Value> {
    let channels = document["channels"].as_object().context("channels")?;
    let channel = channels.values().find(|channel| channel["address"] == subject);
    let channel = channel.with_context(|| format!("{subject} is in no document"))?;
    let message = channel["messages"].as_object().and_then(|messages| messages.keys().next()).context("a message")?;
    let mut payload = document["components"]["messages"][message]["payload"].clone();
    payload["properties"]["data"] = document["components"]["schemas"][message].clone();
    Ok(payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_as_the_documents_say() -> Result<()> {
    for (style, documented) in STYLES.into_iter().zip([asyncapi::Style::NotifyBroker, asyncapi::Style::Broker]) {
        let document = asyncapi::document(documented);
        let shop = Shop::open_as(style, &Cluster::control_plane().await?, |options| options).await?;
        let nats = shop.nats.as_ref().context("a broker")?;
        shop.customer("nora", json!(500)).await?;
        // After this order is paid, every service is subscribed, and earlier messages have been repeated.
        assert_eq!(shop.order("nora", json!(100)).await?.status, 200);
        let warm = shop.settled().await?.len();
        let client = admin(nats).await?;
        let mut heard = client.subscribe("orders.>").await?;
        client.flush().await?;
        assert_eq!(shop.order("nora", json!(100)).await?.status, 200);
        assert_eq!(shop.order("nora", json!(1000)).await?.status, 400);
        shop.order("nobody", json!(5)).await?.assert_problem(404);
        let settled = shop.settled().await?;
        assert_eq!(settled.len(), warm + 3);

        client.publish(END, "".into()).await?;
        let mut messages = Vec::new();
        loop {
            let message = tokio::time::timeout(SOON, heard.next()).await?.context("the subscription ended")?;
            if *message.subject == *END {
                break;
            }
            let payload: Value = serde_json::from_slice(&message.payload)?;
            let schema = schema(&document, &message.subject)?;
            if let Err(error) = jsonschema::validate(&schema, &payload) {
                panic!("{} in {}: {error}: {payload}", message.subject, style.as_str());
            }
            messages.push((message.subject.to_string(), payload["data"]["key"].to_string()));
        }
        // Slow requests are repeated, so there are more messages.
        if settled.iter().any(was_told_slowly) {
            messages.sort();
            messages.dedup();
        }
        let times = |subject: &str| messages.iter().filter(|(heard, _)| heard == subject).count();
        let expected = if style == Interaction::Broker { [3, 3, 0, 3] } else { [0, 0, 3, 3] };
        let counts =
            ["orders.payment.requested", "orders.payment.decided", "orders.decided", "orders.notification.changed"].map(times);
        assert_eq!(counts, expected, "one of each an order and no more, {}", style.as_str());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_earlier_version_learns_what_is_new_and_keeps_its_settings() -> Result<()> {
    let mut shop = Shop::open_as(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.customer("otto", json!(500)).await?;
    let id = shop.order("otto", json!(100)).await?.id();
    let nats = shop.nats.as_ref().context("a broker")?;
    let jetstream = jetstream::new(admin(nats).await?);
    let name = topology::Stream::Payments.name();
    shop.stack.billing.kill()?;
    jetstream.delete_consumer_from_stream("billing", name).await?;
    let mut earlier = jetstream.get_stream(name).await?.cached_info().config.clone();
    earlier.subjects = vec![topology::PAYMENT_REQUESTED.to_owned()];
    earlier.max_bytes = 1024 * 1024;
    jetstream.update_stream(earlier).await?;

    shop.stack.billing.start_again().await?;
    let cancelled =
        shop.send(shop.request(reqwest::Method::POST, &format!("/orders/{id}/cancel")).header("prefer", "wait=30")).await?;
    assert_eq!(cancelled.json()["reason"], "Refunded", "{cancelled:?}");
    let config = jetstream.get_stream(name).await?.cached_info().config.clone();
    assert_eq!((config.subjects.len(), config.max_bytes), (3, 1024 * 1024), "what was set by hand stays");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_understands_can_be_looked_at_and_replayed() -> Result<()> {
    let shop = Shop::open_as(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.customer("dina", json!(500)).await?;
    let nats = shop.nats.as_ref().context("a broker")?;
    let stream = jetstream::new(admin(nats).await?);
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
    let dead = wait_for("each to be a dead letter", SOON, || async {
        letters.list().await.ok().filter(|letters| letters.len() == bad.len())
    })
    .await?;
    for letter in &dead {
        assert_eq!((letter.service.as_str(), letter.subject.as_str()), ("billing", "orders.payment.requested"));
        assert!(letter.why.len() > 5, "it says why: {letter:?}");
    }
    assert_eq!(shop.balance("dina").await?, "500.0", "nothing was charged");
    assert_eq!(shop.order("dina", json!(100)).await?.status, 200, "and billing goes on");

    // A replayed message is handled like any other. This one is still invalid, so it becomes a dead letter again.
    letters.replay(&dead[0]).await?;
    let again = wait_for("it to be a dead letter again", SOON, || async {
        letters.list().await.ok().filter(|letters| letters.len() == bad.len())
    })
    .await?;
    assert_eq!(again.last().map(|letter| &letter.payload), Some(&dead[0].payload));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_style_can_be_changed_with_orders_under_way() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let mut shop = Shop::open_as(Interaction::Http, &cluster, |options| options).await?;
    shop.customer("sven", json!(1000)).await?;
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
    let orders = shop.settled().await?;
    assert_eq!(orders.len(), 40);
    assert!(orders.iter().all(|order| order.outcome() == Outcome::Paid));
    assert_eq!(shop.balance("sven").await?, "600.0", "each charged once");
    assert_eq!(shop.messages("sven").await?.len(), 40, "each told once");
    assert_eq!(shop.orders().get(&name(ids[0])).await?.outcome(), Outcome::Paid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_on_as_soon_as_notify_says_how_its_message_stands() -> Result<()> {
    for style in STYLES {
        let shop = Shop::open_as(style, &Cluster::control_plane().await?, |options| options).await?;
        shop.customer("lara", json!(5000)).await?;
        assert_eq!(shop.order("lara", json!(100)).await?.status, 200);
        shop.settled().await?;
        // On a slow machine, the messages may not arrive within one pause, so the test may retry.
        let mut tries = 0;
        while !goes_on_before_the_next_attempt(&shop).await? {
            tries += 1;
            ensure!(tries < 5, "{tries} orders went on only with their next attempt, {}", style.as_str());
        }
    }
    Ok(())
}

/// Places an order while notify is frozen, and resumes notify in a long pause between two attempts. Returns whether
/// the order settled in that pause.
async fn goes_on_before_the_next_attempt(shop: &Shop) -> Result<bool> {
    let client = admin(shop.nats.as_ref().context("a broker")?).await?;
    let mut heard = client.subscribe("orders.>").await?;
    client.flush().await?;

    shop.stack.notify.process.signal(Signal::STOP)?;
    let id = shop.send(shop.order_request("lara", json!(100)).header("prefer", "respond-async")).await?.id();
    // After this attempt, the operator pauses for eight seconds before the next request.
    let asked = 5;
    let retry = |order: &Order| order.status.as_ref().and_then(|status| status.retry.clone());
    let waiting = shop
        .wait_order(&name(id), "notify to be asked in vain", |order| retry(order).is_some_and(|retry| retry.attempts >= asked))
        .await?;
    shop.stack.notify.process.signal(Signal::CONT)?;
    shop.settled().await?;
    let told = shop.orders().get(&name(id)).await?.status.context("a status")?;
    let told = conditions::find(&told.conditions, ConditionType::Notified).context("a condition")?.last_transition_time.0;
    // Kubernetes stores times in whole seconds.
    if told + Duration::from_secs(1) >= retry(&waiting).context("a retry")?.next_attempt_time.0 {
        return Ok(false);
    }
    client.publish(END, "".into()).await?;
    let mut said = 0;
    loop {
        let message = tokio::time::timeout(SOON, heard.next()).await?.context("the subscription ended")?;
        match &*message.subject {
            END => break,
            topology::DECIDED => said += 1,
            _ => {}
        }
    }
    assert_eq!(said, asked, "nobody asks once more for what was said");
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_told_to_stop_finish_what_they_began_and_end_well() -> Result<()> {
    let mut shop = Shop::open_as(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.customer("greta", json!(1000)).await?;
    for round in 0..2 {
        for _ in 0..10 {
            let order = shop.order_request("greta", json!(10)).header("prefer", "respond-async");
            assert_eq!(shop.send(order).await?.status, 202);
        }
        let stack = &mut shop.stack;
        for service in [&mut stack.billing, &mut stack.notify, &mut stack.operators[0]] {
            let ended = service.process.terminate(SOON).await?;
            assert!(ended.success(), "round {round}: {ended}: {}", service.process.output());
            assert!(!service.process.output().contains("panicked"), "{}", service.process.output());
            service.start_again().await?;
        }
    }
    let orders = shop.settled().await?;
    assert!(orders.len() == 20 && orders.iter().all(|order| order.outcome() == Outcome::Paid));
    assert_eq!(shop.balance("greta").await?, "800.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_runs_in_the_style_that_was_asked_for() -> Result<()> {
    let shop = Shop::open().await?;
    assert_eq!(shop.nats.is_some(), interaction() != Interaction::Http);
    Ok(())
}
