//! Tests of an order's life after it is placed: cancellation, refund, a deadline that passes before the charge, a retry,
//! deletion while the state of the charge is unknown, and a message that is given up and sent again.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use orders_crds::{Order, Outcome, Refusal, order::FINALIZER};
use orders_testbed::{Cluster, Signal, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    audit::audit,
    shop::{Answer, SLOW_NOTIFY, SOON, Shop, name, reasons},
};

impl Shop {
    async fn ask(&self, id: i64, what: &str) -> Result<Answer> {
        self.send(self.request(Method::POST, &format!("/orders/{id}/{what}"))).await
    }

    async fn patch_spec(&self, id: i64, spec: Value) -> kube::Result<Order> {
        self.orders().patch(&name(id), &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await
    }

    async fn texts(&self, login: &str) -> Result<Vec<String>> {
        Ok(self.messages(login).await?.into_iter().map(|(text, _)| text).collect())
    }

    /// Asserts that the audit succeeds.
    async fn assert_sound(&self) -> Result<()> {
        let audited = audit(self, &[]).await?;
        assert_eq!(audited.exit_code, Some(0), "{}", audited.output);
        Ok(())
    }
}

/// The actions in the history, without those that only a slow notify adds.
fn actions(shown: &Value) -> Vec<String> {
    let history = shown["history"].as_array().cloned().unwrap_or_default();
    let actions = history.iter().map(|entry| format!("{} {}", entry["action"], entry["reason"]).replace('"', ""));
    actions.filter(|action| !SLOW_NOTIFY.contains(&&**action)).collect()
}

fn is_refused_as(order: &Order, refusal: Refusal) -> bool {
    order.outcome() == Outcome::Refused(refusal) && order.status.as_ref().is_some_and(|status| status.is_notified())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_order_that_is_cancelled_ten_times_at_once_is_given_back_once() -> Result<()> {
    let shop = Shop::open().await?;
    shop.customer("carl", json!(500)).await?;
    let id = shop.order("carl", json!(100)).await?.id();
    assert_eq!(shop.balance("carl").await?, "400.0");
    shop.settled().await?;

    for answer in try_join_all((0..10).map(|_| shop.ask(id, "cancel"))).await? {
        assert_eq!((answer.status, &answer.json()["reason"]), (200, &json!("Refunded")), "{answer:?}");
    }
    assert_eq!(shop.balance("carl").await?, "500.0");
    let order = shop.wait_order(&name(id), "given back", |order| is_refused_as(order, Refusal::Refunded)).await?;
    assert_eq!(reasons(&order), ["Refunded", "Refunded", "Sent"]);
    assert_eq!(shop.texts("carl").await?, ["Заказ успешно оформлен", "Заказ отменён, деньги возвращены: 100.0"]);
    let shown = shop.get(&format!("/orders/{id}")).await?.json();
    assert_eq!(
        (&shown["status"], &shown["refunded"], &shown["balance"], &shown["cancel_requested"]),
        (&json!(0), &json!(100.0), &json!(500.0), &json!(true))
    );
    assert_eq!(actions(&shown), ["Charge Paid", "Notify Sent", "Refund Refunded", "Notify Sent"]);

    assert_eq!(shop.ask(id, "cancel").await?.status, 200, "it is so already");
    shop.ask(id, "retry").await?.assert_problem(409);
    let taken_back = shop.patch_spec(id, json!({"cancelRequested": false})).await.expect_err("un-cancelling");
    assert!(taken_back.to_string().contains("cannot be taken back"), "{taken_back}");
    // The deletion of a finished order refunds nothing.
    shop.orders().delete(&name(id), &DeleteParams::default()).await?;
    assert_eq!(shop.order("carl", json!(1)).await?.status, 200);
    assert_eq!(shop.balance("carl").await?, "499.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_patch_cancels_and_deleting_a_paid_order_does_not() -> Result<()> {
    let shop = Shop::open().await?;
    shop.customer("kate", json!(500)).await?;
    let (cancelled, deleted) = (shop.order("kate", json!(100)).await?.id(), shop.order("kate", json!(50)).await?.id());
    shop.patch_spec(cancelled, json!({"cancelRequested": true})).await?;
    shop.wait_order(&name(cancelled), "given back", |order| is_refused_as(order, Refusal::Refunded)).await?;
    shop.orders().delete(&name(deleted), &DeleteParams::default()).await?;
    // When a later order is paid, the operator has seen all earlier ones.
    assert_eq!(shop.order("kate", json!(1)).await?.status, 200);
    assert_eq!(shop.balance("kate").await?, "449.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_finds_out_first_what_became_of_the_charge() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.customer("uma", json!(500)).await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("uma", json!(100)).header("prefer", "wait=0")).await?.id();
    shop.wait_order(&name(id), "tried in vain", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    let request = shop.request(Method::POST, &format!("/orders/{id}/cancel")).header("prefer", "wait=1");
    let asked = shop.send(request).await?;
    assert_eq!((asked.status, &asked.json()["status"]), (202, &json!(2)), "unknown is not cancelled: {asked:?}");

    shop.stack.billing.start_again().await?;
    shop.wait_order(&name(id), "cancelled or given back, and free to go", |order| {
        (is_refused_as(order, Refusal::Cancelled) || is_refused_as(order, Refusal::Refunded)) && order.finalizers().is_empty()
    })
    .await?;
    assert_eq!(shop.balance("uma").await?, "500.0");
    assert_eq!(shop.ask(id, "cancel").await?.status, 200);
    shop.assert_sound().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_deleted_with_its_charge_unknown_is_cancelled_and_told_before_it_goes() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.customer("xenia", json!(500)).await?;
    shop.stack.billing.kill()?;
    shop.stack.notify.kill()?;
    let id = shop.send(shop.order_request("xenia", json!(100)).header("prefer", "wait=0")).await?.id();
    shop.wait_order(&name(id), "kept from going away", |order| order.finalizers() == [FINALIZER]).await?;
    shop.orders().delete(&name(id), &DeleteParams::default()).await?;
    assert!(shop.orders().get(&name(id)).await?.metadata.deletion_timestamp.is_some(), "it waits for billing");

    shop.stack.billing.start_again().await?;
    let untold = shop.wait_order(&name(id), "decided", |order| order.outcome() != Outcome::Undecided).await?;
    assert_eq!(untold.finalizers(), [FINALIZER], "it waits for notify");
    let tried = |order: &Order| order.status.as_ref().and_then(|status| status.retry.as_ref()).map_or(0, |retry| retry.attempts);
    shop.wait_order(&name(id), "waiting for notify through several attempts", |order| tried(order) >= 3).await?;
    assert!(shop.orders().get_opt(&name(id)).await?.is_some(), "it still waits for notify");
    shop.stack.notify.start_again().await?;
    let orders = shop.orders();
    wait_for("the order to be gone", SOON, || async { orders.get_opt(&name(id)).await.ok()?.is_none().then_some(()) }).await?;
    assert_eq!(shop.balance("xenia").await?, "500.0");
    assert!(shop.texts("xenia").await?.last().is_some_and(|text| text.starts_with("Заказ отменён")), "the customer is told");
    let archived = shop.archived(id).await?;
    // With a broker, the charge may have waited for billing, which then made it first.
    assert!(["Cancelled", "Refunded"].contains(&archived["reason"].as_str().unwrap_or_default()), "{archived}");
    assert_eq!(archived["message_state"], "Sent", "{archived}");
    shop.assert_sound().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_is_charged_again_after_a_refill_and_once() -> Result<()> {
    let shop = Shop::open().await?;
    shop.customer("rita", json!(50)).await?;
    let id = shop.order("rita", json!(100)).await?.id();
    shop.ask(id, "cancel").await?.assert_problem(409);
    // The customer is notified of each attempt before the next one.
    shop.settled().await?;
    let again = shop.ask(id, "retry").await?;
    assert_eq!((again.status, &again.json()["status"], &again.json()["attempt"]), (200, &json!(0), &json!(2)), "{again:?}");
    shop.settled().await?;
    shop.post("/billing/refill", json!({"login": "rita", "balance": 100})).await?;

    for answer in try_join_all((0..10).map(|_| shop.ask(id, "retry"))).await? {
        match answer.status {
            200 => assert_eq!((&answer.json()["status"], &answer.json()["attempt"]), (&json!(1), &json!(3)), "{answer:?}"),
            _ => answer.assert_problem(409),
        }
    }
    assert_eq!(shop.balance("rita").await?, "50.0");
    shop.settled().await?;
    let shown = shop.get(&format!("/orders/{id}")).await?.json();
    let charges: Vec<String> = actions(&shown).into_iter().filter(|action| !action.starts_with("Notify")).collect();
    assert_eq!(
        charges,
        ["Charge InsufficientFunds", "Retry Processing", "Charge InsufficientFunds", "Retry Processing", "Charge Paid"]
    );
    assert_eq!(shop.texts("rita").await?.len(), 3, "each attempt is told");
    shop.ask(id, "retry").await?.assert_problem(409);
    assert_eq!(shop.ask(id, "cancel").await?.json()["reason"], "Refunded", "the second attempt is given back, too");
    assert_eq!(shop.balance("rita").await?, "150.0");
    shop.assert_sound().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pass_did_to_an_order_that_was_deleted_meanwhile_is_undone() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.customer("vera", json!(50)).await?;
    let (again, back) = (shop.order("vera", json!(100)).await?.id(), shop.order("vera", json!(30)).await?.id());
    shop.post("/billing/refill", json!({"login": "vera", "balance": 100})).await?;
    shop.settled().await?;
    assert_eq!(shop.balance("vera").await?, "120.0");

    // The order is charged again and deleted before the status is written: the frozen notify delays the reconciliation by
    // less than a second.
    shop.stack.notify.process.signal(Signal::STOP)?;
    let retry = shop.request(Method::POST, &format!("/orders/{again}/retry")).header("prefer", "respond-async");
    shop.send(retry).await?;
    wait_for("the charge", SOON, || async { (shop.balance("vera").await.ok()? == "20.0").then_some(()) }).await?;
    shop.stack.operators[0].process.signal(Signal::STOP)?;
    shop.orders().delete(&name(again), &DeleteParams::default()).await?;
    shop.stack.operators[0].process.signal(Signal::CONT)?;
    shop.stack.notify.process.signal(Signal::CONT)?;
    wait_for("the refund", SOON, || async { (shop.balance("vera").await.ok()? == "120.0").then_some(()) }).await?;

    // The order is cancelled, and deleted before the refund.
    shop.stack.billing.kill()?;
    shop.patch_spec(back, json!({"cancelRequested": true})).await?;
    shop.orders().delete(&name(back), &DeleteParams::default()).await?;
    shop.stack.billing.start_again().await?;
    wait_for("the other refund", SOON, || async { (shop.balance("vera").await.ok()? == "150.0").then_some(()) }).await?;
    wait_for("both in the archive", SOON, || async {
        let states = [again, back]
            .map(async |id| shop.get(&format!("/orders/{id}")).await.ok().map(|shown| shown.json()["reason"].clone()));
        let [one, other] = states;
        (one.await? == "Refunded" && other.await? == "Refunded").then_some(())
    })
    .await?;
    shop.assert_sound().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_not_begun_after_the_deadline() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.customer("dora", json!(500)).await?;
    let order = |seconds: Value| {
        shop.request(Method::POST, "/orders/").header("prefer", "wait=0").json(
            &json!({"login": "dora", "e_mail": "dora@example.com", "id_cart": 0, "amount": 100, "deadline_seconds": seconds}),
        )
    };
    for bad in [json!(0), json!(-1), json!(31_536_001), json!(1.5), json!("60")] {
        shop.send(order(bad)).await?.assert_problem(422);
    }
    let (late, in_time) = (order(json!(1)), order(json!(31_536_000)));
    shop.stack.operators[0].kill()?;
    let (late, in_time) = (shop.send(late).await?.id(), shop.send(in_time).await?.id());
    let created = shop.orders().get(&name(late)).await?.metadata.creation_timestamp.context("a creation time")?.0;
    wait_for("its deadline to pass", SOON, || async move {
        (jiff::Timestamp::now() > created + Duration::from_secs(2)).then_some(())
    })
    .await?;
    shop.stack.operators[0].start_again().await?;
    shop.wait_order(&name(late), "too late", |order| is_refused_as(order, Refusal::DeadlineExceeded)).await?;
    shop.wait_order(&name(in_time), "paid", |order| order.outcome() == Outcome::Paid).await?;
    assert_eq!(shop.balance("dora").await?, "400.0");
    assert!(shop.texts("dora").await?.contains(&"Заказ не оформлен: истёк срок оплаты.".to_owned()));
    shop.ask(late, "retry").await?.assert_problem(409);
    let moved = shop.patch_spec(in_time, json!({"deadlineSeconds": 5})).await.expect_err("another deadline");
    assert!(moved.to_string().contains("immutable"), "{moved}");
    shop.assert_sound().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_given_up_shows_and_is_sent_again_on_request() -> Result<()> {
    let mut shop = Shop::open_with(&Cluster::control_plane().await?, |mut options| {
        options.env.push(("notify", "MAX_ATTEMPTS", "3".to_owned()));
        options
    })
    .await?;
    shop.customer("mona", json!(500)).await?;
    shop.inbox.stop()?;
    let id = shop.send(shop.order_request("mona", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.ask(id, "notifications/resend").await?.assert_problem(409);
    let given_up = |order: &Order| reasons(order).contains(&"DeadLettered");
    shop.wait_order(&name(id), "given up", given_up).await?;
    let shown = shop.get(&format!("/orders/{id}")).await?.json();
    assert_eq!((&shown["status"], &shown["message_state"]), (&json!(1), &json!("DeadLettered")), "it is paid all the same");

    shop.inbox.start_again().await?;
    let again = shop.ask(id, "notifications/resend").await?;
    assert_eq!((again.status, &again.json()["message_state"]), (200, &json!("Sent")), "{again:?}");
    shop.ask(id, "notifications/resend").await?.assert_problem(409);
    assert_eq!(shop.inbox.messages_to("mona@example.com").await?.len(), 1);
    shop.assert_sound().await
}

/// Reads the event stream to its end, and returns the ids and the orders.
async fn followed(shop: &Shop, id: i64, last: Option<&str>) -> Result<Vec<(String, Value)>> {
    let request = shop.request(Method::GET, &format!("/orders/{id}/events"));
    let answer = shop.send(last.into_iter().fold(request, |request, last| request.header("last-event-id", last))).await?;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "text/event-stream"), "{answer:?}");
    let field =
        |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let events = answer.text.split("\n\n").filter(|event| event.contains("event: order"));
    events.map(|event| Ok((field(event, "id:"), serde_json::from_str(&field(event, "data:"))?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_followed_until_it_is_finished() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.customer("fred", json!(500)).await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("fred", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.wait_order(&name(id), "tried in vain", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    shop.stack.billing.start_again_unready()?;
    let events = followed(&shop, id, None).await?;
    assert!(events.len() >= 2, "{events:?}");
    assert_eq!(events[0].1["status"], 2, "at once as it is");
    let (last, order) = events.last().expect("an event");
    assert_eq!((&order["reason"], &order["message_state"]), (&json!("Paid"), &json!("Sent")));
    assert_eq!(followed(&shop, id, Some(last)).await?, [], "there is nothing new");
    assert_eq!(followed(&shop, id, Some("made up")).await?.len(), 1, "the order as it is");
    shop.get("/orders/4711/events").await?.assert_problem(404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_of_an_order_is_refused_and_changes_nothing() -> Result<()> {
    let shop = Shop::open().await?;
    shop.customer("bert", json!(500)).await?;
    let id = shop.order("bert", json!(100)).await?.id();
    for what in ["cancel", "retry", "notifications/resend"] {
        for unknown in ["4711", "0", "-1", "x", "9007199254740992"] {
            shop.send(shop.request(Method::POST, &format!("/orders/{unknown}/{what}"))).await?.assert_problem(404);
        }
        shop.send(shop.request(Method::GET, &format!("/orders/{id}/{what}"))).await?.assert_problem(405);
    }
    shop.ask(id, "retry").await?.assert_problem(409);
    shop.ask(id, "notifications/resend").await?.assert_problem(409);
    // Invalid numbers request nothing.
    let annotations = json!({"metadata": {"annotations": {"arch.homework/attempt": "-7", "arch.homework/resend": "1e9"}}});
    shop.orders().patch(&name(id), &PatchParams::default(), &Patch::Merge(annotations)).await?;
    assert_eq!(shop.order("bert", json!(1)).await?.status, 200);
    assert_eq!(shop.balance("bert").await?, "399.0");
    shop.assert_sound().await
}
