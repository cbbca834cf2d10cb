//! Tests of values from a newer version, as after a rollback: they are shown as unknown, requested again, and
//! never treated as a refusal. The operator's own tests cover values over HTTP.

use anyhow::{Context, Result};
use async_nats::jetstream;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use orders_contracts::topology::{NOTIFICATION_CHANGED, PAYMENT_DECIDED, Stream};
use orders_crds::Outcome;
use orders_shop::Interaction;
use orders_testbed::{Cluster, Signal, wait_for};
use serde_json::{Value, json};

use crate::shop::{Shop, WAIT_TIMEOUT, name, reasons};

const STYLES: [Interaction; 3] = [Interaction::Http, Interaction::NotifyBroker, Interaction::Broker];

/// A CloudEvent from a newer version of a service.
fn event(type_: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": "from-the-future", "source": "/test", "type": format!("homework.arch.orders.{type_}.v1"),
        "subject": data["key"], "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": data})
    .to_string()
}

async fn publish(shop: &Shop, subject: &'static str, event: String) -> Result<jetstream::Context> {
    let nats = shop.nats.as_ref().context("a broker")?;
    let options = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), nats.password("admin").to_owned());
    let jetstream = jetstream::new(options.connect(nats.url()).await?);
    jetstream.publish(subject, event.into()).await?.await?;
    Ok(jetstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_a_newer_version_refused_is_not_changed_and_its_customer_is_not_notified() -> Result<()> {
    for style in STYLES {
        let mut shop = Shop::start_with_style(style, &Cluster::control_plane().await?, |options| options).await?;
        shop.open_account("nina", json!(500)).await?;
        let id = shop.place_order("nina", json!(100)).await?.id();
        shop.wait_settled().await?;
        shop.stack.operators[0].kill()?;
        let time = "2026-01-01T00:00:00Z";
        let condition = |kind: &str| json!({"type": kind, "status": "False", "reason": "AccountFrozen", "message": "", "lastTransitionTime": time});
        let frozen = json!({"status": {"conditions": [condition("Paid"), condition("Succeeded")]}});
        let patched = shop.orders().patch_status(&name(id), &PatchParams::default(), &Patch::Merge(frozen)).await?;
        assert_eq!(patched.outcome(), Outcome::Unknown);

        shop.stack.operators[0].restart().await?;
        // When a later order is paid, the operator has seen the event.
        assert_eq!(shop.place_order("nina", json!(1)).await?.status, 200, "{}", style.as_str());
        let shown = shop.get(&format!("/orders/{id}")).await?.json();
        assert_eq!((&shown["status"], &shown["reason"]), (&json!(2), &json!("AccountFrozen")), "{}", style.as_str());
        let order = shop.orders().get(&name(id)).await?;
        assert_eq!(reasons(&order), ["AccountFrozen", "AccountFrozen"], "{}", style.as_str());
        let mails = shop.inbox.messages_to("nina@example.com").await?;
        let uid = order.uid().context("a UID")?;
        assert_eq!(mails.iter().filter(|mail| mail.message_id.starts_with(&uid)).count(), 1, "only the message that it was paid");
        shop.send(shop.request(reqwest::Method::POST, &format!("/orders/{id}/retry"))).await?.assert_problem(409);
        assert!(order.finalizers().is_empty(), "no finalizer is left: {:?}", order.finalizers());
        // After its deletion, the order is in the archive.
        shop.orders().delete(&name(id), &DeleteParams::default()).await?;
        wait_for("the order to be archived", WAIT_TIMEOUT, || async {
            shop.orders().get_opt(&name(id)).await.ok()?.is_none().then_some(())?;
            let archived = shop.get(&format!("/orders/{id}")).await.ok()?;
            (archived.status == 200 && archived.json()["reason"] == "AccountFrozen").then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_of_a_newer_billing_decides_nothing_and_sends_no_mail() -> Result<()> {
    let mut shop = Shop::start_with_style(Interaction::Broker, &Cluster::control_plane().await?, |options| options).await?;
    shop.open_account("nils", json!(500)).await?;
    assert_eq!(shop.place_order("nils", json!(1)).await?.status, 200);
    shop.wait_settled().await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("nils", json!(100)).header("prefer", "respond-async")).await?.id();
    let uid = shop.orders().get(&name(id)).await?.uid().context("a UID")?;
    let data = json!({"key": uid, "login": "nils", "email": "nils@example.com", "amount": "100.00", "outcome": "AccountFrozen"});
    let jetstream = publish(&shop, PAYMENT_DECIDED, event("decided", &data)).await?;
    let dead = jetstream.get_stream(Stream::DeadLetters.name()).await?;
    wait_for("the dead letter of notify", WAIT_TIMEOUT, || async {
        (dead.get_info().await.ok()?.state.messages == 1).then_some(())
    })
    .await?;
    let order = shop.wait_order(&name(id), "unknown", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    assert_eq!(order.outcome(), Outcome::Undecided);

    shop.stack.billing.restart().await?;
    shop.wait_settled().await?;
    assert_eq!(shop.orders().get(&name(id)).await?.outcome(), Outcome::Paid, "requested again with the same key");
    assert_eq!(shop.inbox.messages_to("nils@example.com").await?.len(), 2, "one for each order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_state_of_a_newer_notify_does_not_count_as_sent() -> Result<()> {
    let shop = Shop::start_with_style(Interaction::NotifyBroker, &Cluster::control_plane().await?, |options| options).await?;
    shop.open_account("nele", json!(500)).await?;
    assert_eq!(shop.place_order("nele", json!(1)).await?.status, 200);
    shop.wait_settled().await?;
    shop.stack.notify.process.signal(Signal::STOP)?;
    let id = shop.send(shop.order_request("nele", json!(100)).header("prefer", "respond-async")).await?.id();
    let uid = shop.orders().get(&name(id)).await?.uid().context("a UID")?;
    publish(&shop, NOTIFICATION_CHANGED, event("notification.changed", &json!({"key": uid, "state": "Bounced"}))).await?;
    let order = shop.wait_order(&name(id), "paid", |order| order.outcome() == Outcome::Paid).await?;
    assert!(!order.status.is_some_and(|status| status.is_notification_final()), "the request is repeated");
    shop.stack.notify.process.signal(Signal::CONT)?;
    shop.wait_settled().await?;
    assert_eq!(shop.inbox.messages_to("nele@example.com").await?.len(), 2);
    Ok(())
}
