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
use orders_shop::Interaction;
use orders_testbed::{Cluster, Signal, shifted_clock, wait_for, wait_until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    audit::run_audit,
    shop::{Response, SLOW_NOTIFY, Shop, WAIT_TIMEOUT, name, reasons},
};

impl Shop {
    pub async fn post_action(&self, id: i64, action: &str) -> Result<Response> {
        self.send(self.request(Method::POST, &format!("/orders/{id}/{action}"))).await
    }

    async fn patch_spec(&self, id: i64, spec: Value) -> kube::Result<Order> {
        self.orders().patch(&name(id), &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await
    }

    /// Waits until the API shows the order, live or archived, with this reason.
    async fn wait_reason(&self, id: i64, reason: &str) -> Result<()> {
        wait_until(&format!("order {id} to be {reason}"), WAIT_TIMEOUT, || async {
            let shown = self.get(&format!("/orders/{id}")).await.map_err(|error| error.to_string())?.json();
            if shown["reason"] == reason { Ok(()) } else { Err(shown.to_string()) }
        })
        .await
    }

    pub async fn texts(&self, login: &str) -> Result<Vec<String>> {
        Ok(self.messages(login).await?.into_iter().map(|(text, _)| text).collect())
    }

    /// Asserts that the audit succeeds.
    pub async fn assert_audit_passes(&self) -> Result<()> {
        let result = run_audit(self, &[]).await?;
        assert_eq!(result.exit_code, Some(0), "{}", result.output);
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
async fn a_paid_order_that_is_cancelled_ten_times_concurrently_is_refunded_once() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("carl", json!(500)).await?;
    let id = shop.place_order("carl", json!(100)).await?.id();
    assert_eq!(shop.balance("carl").await?, "400.0");
    shop.wait_settled().await?;

    for response in try_join_all((0..10).map(|_| shop.post_action(id, "cancel"))).await? {
        assert_eq!((response.status, &response.json()["reason"]), (200, &json!("Refunded")), "{response:?}");
    }
    assert_eq!(shop.balance("carl").await?, "500.0");
    let order = shop.wait_order(&name(id), "refunded", |order| is_refused_as(order, Refusal::Refunded)).await?;
    assert_eq!(reasons(&order), ["Refunded", "Refunded", "Refunded", "Sent"]);
    assert_eq!(shop.texts("carl").await?, ["Заказ успешно оформлен", "Заказ отменён, деньги возвращены: 100.0"]);
    let shown = shop.get(&format!("/orders/{id}")).await?.json();
    assert_eq!(
        (&shown["status"], &shown["refunded"], &shown["balance"], &shown["cancel_requested"]),
        (&json!(0), &json!(100.0), &json!(500.0), &json!(true))
    );
    assert_eq!(actions(&shown), ["Charge Paid", "Notify Sent", "Refund Refunded", "Notify Sent"]);

    assert_eq!(shop.post_action(id, "cancel").await?.status, 200, "the order is already cancelled");
    shop.post_action(id, "retry").await?.assert_problem(409);
    let error = shop.patch_spec(id, json!({"cancelRequested": false})).await.expect_err("un-cancelling");
    assert!(error.to_string().contains("cannot be taken back"), "{error}");
    // The deletion of a finished order refunds nothing.
    shop.orders().delete(&name(id), &DeleteParams::default()).await?;
    assert_eq!(shop.place_order("carl", json!(1)).await?.status, 200);
    assert_eq!(shop.balance("carl").await?, "499.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_patch_cancels_and_deleting_a_paid_order_does_not() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("kate", json!(500)).await?;
    let (cancelled, deleted) =
        (shop.place_order("kate", json!(100)).await?.id(), shop.place_order("kate", json!(50)).await?.id());
    shop.patch_spec(cancelled, json!({"cancelRequested": true})).await?;
    shop.wait_order(&name(cancelled), "refunded", |order| is_refused_as(order, Refusal::Refunded)).await?;
    shop.orders().delete(&name(deleted), &DeleteParams::default()).await?;
    // When a later order is paid, the operator has seen all earlier ones.
    assert_eq!(shop.place_order("kate", json!(1)).await?.status, 200);
    assert_eq!(shop.balance("kate").await?, "449.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_first_resolves_an_unknown_charge() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("uma", json!(500)).await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("uma", json!(100)).header("prefer", "wait=0")).await?.id();
    shop.wait_order(&name(id), "shown as unknown", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    let request = shop.request(Method::POST, &format!("/orders/{id}/cancel")).header("prefer", "wait=1");
    let response = shop.send(request).await?;
    assert_eq!((response.status, &response.json()["status"]), (202, &json!(2)), "unknown is not cancelled: {response:?}");

    shop.stack.billing.restart().await?;
    shop.wait_order(&name(id), "cancelled or refunded, and without a finalizer", |order| {
        (is_refused_as(order, Refusal::Cancelled) || is_refused_as(order, Refusal::Refunded)) && order.finalizers().is_empty()
    })
    .await?;
    assert_eq!(shop.balance("uma").await?, "500.0");
    assert_eq!(shop.post_action(id, "cancel").await?.status, 200);
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_deleted_with_an_unknown_charge_is_cancelled_and_its_customer_notified_before_removal() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("xenia", json!(500)).await?;
    shop.stack.billing.kill()?;
    shop.stack.notify.kill()?;
    let id = shop.send(shop.order_request("xenia", json!(100)).header("prefer", "wait=0")).await?.id();
    shop.wait_order(&name(id), "protected by its finalizer", |order| order.finalizers() == [FINALIZER]).await?;
    shop.orders().delete(&name(id), &DeleteParams::default()).await?;
    assert!(shop.orders().get(&name(id)).await?.metadata.deletion_timestamp.is_some(), "it waits for billing");

    shop.stack.billing.restart().await?;
    let decided = shop.wait_order(&name(id), "decided", |order| order.outcome() != Outcome::Undecided).await?;
    assert_eq!(decided.finalizers(), [FINALIZER], "it waits for notify");
    let attempts =
        |order: &Order| order.status.as_ref().and_then(|status| status.retry.as_ref()).map_or(0, |retry| retry.attempts);
    shop.wait_order(&name(id), "waiting for notify through several attempts", |order| attempts(order) >= 3).await?;
    assert!(shop.orders().get_opt(&name(id)).await?.is_some(), "it still waits for notify");
    shop.stack.notify.restart().await?;
    let orders = shop.orders();
    wait_for("the deletion of the order", WAIT_TIMEOUT, || async {
        orders.get_opt(&name(id)).await.ok()?.is_none().then_some(())
    })
    .await?;
    assert_eq!(shop.balance("xenia").await?, "500.0");
    // Notify handles the outcomes that the broker kept for it in any order.
    let texts = shop.texts("xenia").await?;
    assert!(texts.iter().any(|text| text.starts_with("Заказ отменён")), "the customer is notified: {texts:?}");
    let archived = shop.wait_archived(id).await?;
    // With a broker, the request of the charge may have been stored, and billing then charged before the cancellation.
    assert!(["Cancelled", "Refunded"].contains(&archived["reason"].as_str().unwrap_or_default()), "{archived}");
    assert_eq!(archived["message_state"], "Sent", "{archived}");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_is_charged_once_by_a_retry_after_a_refill() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("rita", json!(50)).await?;
    let id = shop.place_order("rita", json!(100)).await?.id();
    shop.post_action(id, "cancel").await?.assert_problem(409);
    // The customer is notified of each attempt before the next one.
    shop.wait_settled().await?;
    let again = shop.post_action(id, "retry").await?;
    assert_eq!((again.status, &again.json()["status"], &again.json()["attempt"]), (200, &json!(0), &json!(2)), "{again:?}");
    shop.wait_settled().await?;
    shop.post("/billing/refill", json!({"login": "rita", "balance": 100})).await?;

    for response in try_join_all((0..10).map(|_| shop.post_action(id, "retry"))).await? {
        match response.status {
            200 => assert_eq!((&response.json()["status"], &response.json()["attempt"]), (&json!(1), &json!(3)), "{response:?}"),
            _ => response.assert_problem(409),
        }
    }
    assert_eq!(shop.balance("rita").await?, "50.0");
    shop.wait_settled().await?;
    let shown = shop.get(&format!("/orders/{id}")).await?.json();
    let charges: Vec<String> = actions(&shown).into_iter().filter(|action| !action.starts_with("Notify")).collect();
    assert_eq!(
        charges,
        ["Charge InsufficientFunds", "Retry Processing", "Charge InsufficientFunds", "Retry Processing", "Charge Paid"]
    );
    assert_eq!(shop.texts("rita").await?.len(), 3, "one message for each attempt");
    shop.post_action(id, "retry").await?.assert_problem(409);
    assert_eq!(
        shop.post_action(id, "cancel").await?.json()["reason"],
        "Refunded",
        "the charge of a later attempt is refunded, too"
    );
    assert_eq!(shop.balance("rita").await?, "150.0");
    shop.assert_audit_passes().await
}

/// With a broker, notify has the outcome from billing, so that the customer is told.
#[tokio::test(flavor = "multi_thread")]
async fn the_charge_of_an_order_that_is_deleted_during_its_reconciliation_is_given_back() -> Result<()> {
    let mut shop = Shop::start_with_style(Interaction::Http, &Cluster::control_plane().await?, |options| options).await?;
    shop.open_account("vera", json!(50)).await?;
    let again = shop.place_order("vera", json!(100)).await?.id();
    shop.post("/billing/refill", json!({"login": "vera", "balance": 70})).await?;
    shop.wait_settled().await?;
    assert_eq!(shop.balance("vera").await?, "120.0");

    // The order is charged again, and deleted before its customer is told and its status is written: the suspended notify
    // delays the reconciliation by less than a second, and never handles the request.
    shop.stack.notify.process.signal(Signal::STOP)?;
    let retry = shop.request(Method::POST, &format!("/orders/{again}/retry")).header("prefer", "respond-async");
    shop.send(retry).await?;
    wait_for("the charge", WAIT_TIMEOUT, || async { (shop.balance("vera").await.ok()? == "20.0").then_some(()) }).await?;
    shop.stack.operators[0].process.signal(Signal::STOP)?;
    shop.orders().delete(&name(again), &DeleteParams::default()).await?;
    shop.stack.notify.restart().await?;
    shop.stack.operators[0].process.signal(Signal::CONT)?;
    wait_for("the void", WAIT_TIMEOUT, || async { (shop.balance("vera").await.ok()? == "120.0").then_some(()) }).await?;
    shop.wait_reason(again, "Cancelled").await?;
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_cancelled_and_deleted_before_its_refund_is_refunded() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("wera", json!(50)).await?;
    let id = shop.place_order("wera", json!(30)).await?.id();
    shop.wait_settled().await?;
    shop.stack.billing.kill()?;
    shop.patch_spec(id, json!({"cancelRequested": true})).await?;
    shop.orders().delete(&name(id), &DeleteParams::default()).await?;
    shop.stack.billing.restart().await?;
    wait_for("the refund", WAIT_TIMEOUT, || async { (shop.balance("wera").await.ok()? == "50.0").then_some(()) }).await?;
    shop.wait_reason(id, "Refunded").await?;
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_charge_starts_after_the_deadline() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("dora", json!(500)).await?;
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
    wait_for("the deadline to pass", WAIT_TIMEOUT, || async move {
        (jiff::Timestamp::now() > created + Duration::from_secs(2)).then_some(())
    })
    .await?;
    shop.stack.operators[0].restart().await?;
    shop.wait_order(&name(late), "too late", |order| is_refused_as(order, Refusal::DeadlineExceeded)).await?;
    shop.wait_order(&name(in_time), "paid", |order| order.outcome() == Outcome::Paid).await?;
    assert_eq!(shop.balance("dora").await?, "400.0");
    assert!(shop.texts("dora").await?.contains(&"Заказ не оформлен: истёк срок оплаты.".to_owned()));
    shop.post_action(late, "retry").await?.assert_problem(409);
    let error = shop.patch_spec(in_time, json!({"deadlineSeconds": 5})).await.expect_err("another deadline");
    assert!(error.to_string().contains("immutable"), "{error}");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_counts_by_the_clock_of_kubernetes_if_that_of_the_operator_is_wrong() -> Result<()> {
    for seconds in [60, -60] {
        let clock = shifted_clock(seconds).await?;
        let mut shop = Shop::start_with(&Cluster::control_plane().await?, |mut options| {
            options.env.extend(clock.map(|(name, value)| ("operator", name, value)));
            options
        })
        .await?;
        shop.open_account("dana", json!(500)).await?;
        let order = |deadline: i64| {
            shop.request(Method::POST, "/orders/").header("prefer", "wait=0").json(&json!({
                "login": "dana", "e_mail": "dana@example.com", "id_cart": 0, "amount": 100, "deadline_seconds": deadline
            }))
        };
        let in_time = shop.send(order(50)).await?.id();
        shop.wait_order(&name(in_time), "paid", |order| order.outcome() == Outcome::Paid).await?;
        let late = order(5);
        shop.stack.operators[0].kill()?;
        let late = shop.send(late).await?.id();
        let created = shop.orders().get(&name(late)).await?.metadata.creation_timestamp.context("a creation time")?.0;
        wait_for("the deadline to pass", WAIT_TIMEOUT, || async move {
            (jiff::Timestamp::now() > created + Duration::from_secs(8)).then_some(())
        })
        .await?;
        shop.stack.operators[0].restart().await?;
        shop.wait_order(&name(late), "too late", |order| is_refused_as(order, Refusal::DeadlineExceeded)).await?;
        assert_eq!(shop.balance("dana").await?, "400.0", "{seconds}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_lettered_message_is_shown_and_resent_on_request() -> Result<()> {
    let mut shop = Shop::start_with(&Cluster::control_plane().await?, |mut options| {
        options.env.push(("notify", "MAX_ATTEMPTS", "3".to_owned()));
        options
    })
    .await?;
    shop.open_account("mona", json!(500)).await?;
    shop.inbox.stop()?;
    let id = shop.send(shop.order_request("mona", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.post_action(id, "notifications/resend").await?.assert_problem(409);
    let is_dead_lettered = |order: &Order| reasons(order).contains(&"DeadLettered");
    shop.wait_order(&name(id), "dead-lettered", is_dead_lettered).await?;
    let shown = shop.get(&format!("/orders/{id}")).await?.json();
    assert_eq!((&shown["status"], &shown["message_state"]), (&json!(1), &json!("DeadLettered")), "it is paid regardless");

    shop.inbox.restart().await?;
    let again = shop.post_action(id, "notifications/resend").await?;
    assert_eq!((again.status, &again.json()["message_state"]), (200, &json!("Sent")), "{again:?}");
    shop.post_action(id, "notifications/resend").await?.assert_problem(409);
    assert_eq!(shop.inbox.messages_to("mona@example.com").await?.len(), 1);
    shop.assert_audit_passes().await
}

/// Reads the event stream to its end, and returns the ids and the orders.
async fn read_events(shop: &Shop, id: i64, last: Option<&str>) -> Result<Vec<(String, Value)>> {
    let request = shop.request(Method::GET, &format!("/orders/{id}/events"));
    let response = shop.send(last.into_iter().fold(request, |request, last| request.header("last-event-id", last))).await?;
    assert_eq!((response.status, response.content_type.as_str()), (200, "text/event-stream"), "{response:?}");
    let field =
        |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let events = response.text.split("\n\n").filter(|event| event.contains("event: order"));
    events.map(|event| Ok((field(event, "id:"), serde_json::from_str(&field(event, "data:"))?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn order_events_are_streamed_until_the_order_is_finished() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("fred", json!(500)).await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("fred", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.wait_order(&name(id), "shown as unknown", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    shop.stack.billing.restart_without_waiting()?;
    let events = read_events(&shop, id, None).await?;
    assert!(events.len() >= 2, "{events:?}");
    assert_eq!(events[0].1["status"], 2, "the first event is the current state");
    let (last, order) = events.last().expect("an event");
    assert_eq!((&order["reason"], &order["message_state"]), (&json!("Paid"), &json!("Sent")));
    assert_eq!(read_events(&shop, id, Some(last)).await?, [], "there is no new event");
    assert_eq!(read_events(&shop, id, Some("made up")).await?.len(), 1, "the current state");
    shop.get("/orders/4711/events").await?.assert_problem(404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_on_an_order_is_refused_and_changes_nothing() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("bert", json!(500)).await?;
    let id = shop.place_order("bert", json!(100)).await?.id();
    for action in ["cancel", "retry", "notifications/resend"] {
        for unknown in ["4711", "0", "-1", "x", "9007199254740992"] {
            shop.send(shop.request(Method::POST, &format!("/orders/{unknown}/{action}"))).await?.assert_problem(404);
        }
        shop.send(shop.request(Method::GET, &format!("/orders/{id}/{action}"))).await?.assert_problem(405);
    }
    shop.post_action(id, "retry").await?.assert_problem(409);
    shop.post_action(id, "notifications/resend").await?.assert_problem(409);
    // Invalid numbers request nothing.
    let annotations = json!({"metadata": {"annotations": {"arch.homework/attempt": "-7", "arch.homework/resend": "1e9"}}});
    shop.orders().patch(&name(id), &PatchParams::default(), &Patch::Merge(annotations)).await?;
    assert_eq!(shop.place_order("bert", json!(1)).await?.status, 200);
    assert_eq!(shop.balance("bert").await?, "399.0");
    shop.assert_audit_passes().await
}
