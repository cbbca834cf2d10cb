//! Tests of outages: each component is down, suspended or killed during an order. The response is
//! correct, and after the component recovers, the order is charged once and its customer notified once.

use std::time::{Duration, Instant};

use anyhow::Result;
use orders_crds::{ConditionType, Outcome, RetryStep, conditions};
use orders_shop::{Interaction, StackOptions};
use orders_testbed::{Cluster, wait_for};
use serde_json::json;

use crate::{
    lossy_proxy::LossyProxy,
    shop::{Shop, WAIT_TIMEOUT, name, reasons},
};

const PAID: &str = "Заказ успешно оформлен";

#[tokio::test(flavor = "multi_thread")]
async fn an_order_placed_while_billing_is_down_is_undecided_and_then_paid_once() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("anna", json!(500)).await?;
    shop.stack.billing.kill()?;

    let response = shop.send(shop.order_request("anna", json!(100)).header("prefer", "wait=1")).await?;
    let id = response.id();
    response.assert(202, &format!(r#"{{"id":{id},"status":2}}"#));
    let order = shop.wait_order(&name(id), "shown as unknown", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    let status = order.status.clone().unwrap_or_default();
    assert_eq!(order.outcome(), Outcome::Undecided, "unknown is not refused");
    let retry = status.retry.expect("the status shows the retry");
    assert_eq!(retry.step, RetryStep::Payment);
    assert!(retry.attempts >= 1 && retry.last_error.contains("billing"), "{retry:?}");
    shop.get("/billing/account/anna").await?.assert_problem(503);

    shop.stack.billing.restart().await?;
    shop.wait_settled().await?;
    let order = shop.orders().get(&name(id)).await?;
    assert_eq!(order.outcome(), Outcome::Paid);
    assert_eq!(order.status.unwrap_or_default().retry, None, "no retry is left");
    assert_eq!(shop.balance("anna").await?, "400.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_whose_response_was_lost_is_retried_and_made_once() -> Result<()> {
    let (proxy, port) = LossyProxy::listen().await?;
    let through_proxy =
        |options| StackOptions { env: vec![("operator", "BILLING_URL", format!("http://127.0.0.1:{port}"))], ..options };
    let shop = Shop::start_with_style(Interaction::Http, &Cluster::control_plane().await?, through_proxy).await?;
    proxy.set_target(&shop.stack.billing.url);
    shop.open_account("bert", json!(600)).await?;
    // Once an order is paid, the operator has reached billing.
    shop.send(shop.order_request("bert", json!(100)).header("prefer", "wait=55")).await?;
    shop.wait_settled().await?;

    proxy.lose_next(2);
    let response = shop.send(shop.order_request("bert", json!(100)).header("prefer", "wait=0")).await?;
    assert_eq!(response.status, 202, "{response:?}");
    let id = response.id();
    shop.wait_order(&name(id), "shown as unknown", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    assert_eq!(shop.balance("bert").await?, "400.0", "it was charged; only the response is missing");

    shop.wait_settled().await?;
    assert_eq!(proxy.remaining_losses(), 0, "both responses were lost");
    assert_eq!(shop.orders().get(&name(id)).await?.outcome(), Outcome::Paid);
    assert_eq!(shop.balance("bert").await?, "400.0", "charged once, although requested three times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_order_gets_its_response_while_notify_is_down_and_one_notification_later() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("carl", json!(500)).await?;
    shop.stack.notify.kill()?;
    let response = shop.place_order("carl", json!(100)).await?;
    let id = response.id();
    response.assert(200, &format!(r#"{{"id":{id},"status":1}}"#));
    // With a broker, the message is stored while notify is down, and counts as in delivery.
    let shown = if shop.nats.is_none() { "NotifyUnavailable" } else { "Delivering" };
    shop.wait_order(&name(id), "shown as not notified", |order| reasons(order).contains(&shown)).await?;

    shop.stack.notify.restart().await?;
    shop.wait_settled().await?;
    assert_eq!(shop.messages("carl").await?, [(PAID.to_owned(), true)]);
    assert_eq!(shop.inbox.messages_to("carl@example.com").await?.len(), 1);
    assert_eq!(shop.balance("carl").await?, "400.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_mail_server_does_not_delay_the_outcome_and_delays_the_response_only_briefly() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("dora", json!(500)).await?;
    // The duration of an order on this machine while the mail server responds.
    let mut usual = Duration::ZERO;
    for _ in 0..5 {
        let sent = Instant::now();
        assert_eq!(shop.place_order("eva", json!(1)).await?.status, 404);
        usual = usual.max(sent.elapsed());
    }
    shop.inbox.suspend()?;
    let id = shop.send(shop.order_request("dora", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.wait_order(&name(id), "paid", |order| order.outcome() == Outcome::Paid).await?;

    let sent = Instant::now();
    let response = shop.place_order("dora", json!(100)).await?;
    assert_eq!(response.status, 200, "{response:?}");
    // The operator waits 0.8 s for notify, and the public API waits 2 s for the mail. The timeouts of the mail server do not
    // count.
    let limit = Duration::from_millis(2800) + 10 * usual;
    assert!(sent.elapsed() < limit, "the response took {:?}, an order usually takes {usual:?}", sent.elapsed());
    assert_eq!(shop.messages("dora").await?, [(PAID.to_owned(), false), (PAID.to_owned(), false)], "stored, not sent");
    let order = shop.wait_order(&name(id), "shown as delivering", |order| reasons(order).contains(&"Delivering")).await?;
    let condition = conditions::find(&order.status.as_ref().expect("a status").conditions, ConditionType::Notified).cloned();
    assert_eq!(condition.expect("the condition").status, "False");

    shop.inbox.resume()?;
    shop.wait_settled().await?;
    let mails = shop.inbox.messages_to("dora@example.com").await?;
    let mut ids: Vec<_> = mails.iter().map(|mail| mail.message_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2, "one Message-ID for each order, regardless of the attempts: {mails:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_was_down_gets_the_message_after_it_recovers() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("egon", json!(500)).await?;
    shop.inbox.stop()?;
    let placed = shop.place_order("egon", json!(100)).await?;
    assert_eq!(placed.status, 200);
    shop.wait_message_stored(&name(placed.id())).await?;
    assert_eq!(shop.messages("egon").await?, [(PAID.to_owned(), false)]);
    shop.inbox.restart().await?;
    shop.wait_settled().await?;
    assert_eq!(shop.messages("egon").await?, [(PAID.to_owned(), true)]);
    assert_eq!(shop.inbox.messages_to("egon@example.com").await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_in_flight_survive_the_operator_being_killed() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("fred", json!(1000)).await?;
    for round in 0..3 {
        for _ in 0..10 {
            let response = shop.send(shop.order_request("fred", json!(10)).header("prefer", "respond-async")).await?;
            assert_eq!(response.status, 202);
        }
        // The kill is at a different point in the middle of the orders in each round.
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        shop.stack.operators[0].kill()?;
        shop.stack.operators[0].restart().await?;
    }
    let orders = shop.wait_settled().await?;
    assert_eq!(orders.len(), 30);
    assert!(orders.iter().all(|order| order.outcome() == Outcome::Paid));
    assert_eq!(shop.balance("fred").await?, "700.0");
    assert_eq!(shop.messages("fred").await?.len(), 30);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_operator_takes_over_after_a_shutdown_and_after_a_crash() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let shop = Shop::start_with(&cluster, |options| StackOptions { operators: 2, ..options }).await?;
    shop.open_account("gina", json!(1000)).await?;
    assert_eq!(shop.place_order("gina", json!(10)).await?.status, 200);

    let leader = leader(&shop).await?;
    let stopped = shop.stack.operators[leader].process.terminate(WAIT_TIMEOUT).await?;
    assert!(stopped.success(), "a stopped operator exits successfully: {stopped}");
    let response = shop.send(shop.order_request("gina", json!(10)).header("prefer", "wait=30")).await?;
    assert_eq!(response.status, 200, "the other operator took over: {response:?}");

    let mut shop = shop;
    shop.stack.operators[leader].restart().await?;
    shop.stack.operators[1 - leader].kill()?;
    let response = shop.send(shop.order_request("gina", json!(10)).header("prefer", "wait=30")).await?;
    assert_eq!(response.status, 200, "the other operator took over after the lease expired: {response:?}");
    assert_eq!(shop.balance("gina").await?, "970.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_lease_is_acquired_long_before_it_would_expire() -> Result<()> {
    let shop = Shop::start_with(&Cluster::control_plane().await?, |mut options| {
        options.operators = 2;
        options.env.push(("operator", "LEASE_SECONDS", "600".to_owned()));
        options
    })
    .await?;
    shop.open_account("gina", json!(1000)).await?;
    assert_eq!(shop.place_order("gina", json!(10)).await?.status, 200);
    let stopped = shop.stack.operators[leader(&shop).await?].process.terminate(WAIT_TIMEOUT).await?;
    assert!(stopped.success(), "{stopped}");
    wait_for("the other operator to decide an order", WAIT_TIMEOUT, || async {
        let request = shop.order_request("gina", json!(10)).header("idempotency-key", "after");
        (shop.send(request).await.ok()?.status == 200).then_some(())
    })
    .await
}

/// The index of the operator that holds the Lease.
async fn leader(shop: &Shop) -> Result<usize> {
    use k8s_openapi::api::coordination::v1::Lease;
    let leases: kube::Api<Lease> = kube::Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let holder = wait_for("a leader", WAIT_TIMEOUT, || async {
        leases.get("orders-operator").await.ok()?.spec?.holder_identity.filter(|holder| !holder.is_empty())
    })
    .await?;
    Ok(holder.trim_start_matches("operator-").parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kube_apiserver_the_response_says_whether_nothing_was_done_and_a_retry_with_its_key_creates_one_order()
-> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::private(directory.path()).await?;
    let shop = Shop::start_with(&cluster, |options| options).await?;
    shop.open_account("hans", json!(500)).await?;
    assert_eq!(shop.place_order("hans", json!(100)).await?.status, 200);

    cluster.kill_api_server()?;
    let place = || shop.order_request("hans", json!(100)).header("idempotency-key", "k1");
    let response = shop.send(place()).await?;
    // The first attempt may be on a connection that breaks.
    assert!([503, 504].contains(&response.status), "{response:?}");
    response.assert_problem(response.status);
    assert_eq!(response.text.contains("unknown whether"), response.status == 504, "{response:?}");
    assert!(response.headers.contains_key("retry-after"), "{response:?}");
    let promised_id = response.id();

    cluster.start_api_server().await?;
    // The watch of every component broke. Each one must recover by itself.
    let response = shop.send(place().header("prefer", "wait=60")).await?;
    response.assert(200, &format!(r#"{{"id":{promised_id},"status":1}}"#));
    assert_eq!(shop.balance("hans").await?, "300.0");
    assert_eq!(shop.place_order("hans", json!(100)).await?.status, 200);
    assert_eq!(shop.all_orders().await?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_environment_gets_no_call_between_services_and_no_token() -> Result<()> {
    let shop = Shop::start_with(&Cluster::control_plane().await?, |mut options| {
        for service in ["billing", "notify", "archive", "api-server", "operator"] {
            // Nothing listens there.
            let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"];
            options.env.extend(proxies.map(|variable| (service, variable, "http://127.0.0.1:1".to_owned())));
            options.env.push((service, "NO_PROXY", String::new()));
        }
        options
    })
    .await?;
    shop.open_account("rosa", json!(500)).await?;
    assert_eq!(shop.place_order("rosa", json!(100)).await?.status, 200);
    shop.wait_settled().await?;
    assert_eq!(shop.messages("rosa").await?, [(PAID.to_owned(), true)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_while_billing_is_down_shows_the_payment_as_unknown_and_then_charges_once() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("sven", json!(500)).await?;
    assert_eq!(shop.place_order("sven", json!(100)).await?.status, 200);
    shop.stack.operators[0].kill()?;
    shop.stack.billing.kill()?;
    shop.stack.operators[0].restart().await?;
    let id = shop.send(shop.order_request("sven", json!(100)).header("prefer", "respond-async")).await?.id();
    let order = shop.wait_order(&name(id), "shown as unknown", |order| reasons(order).contains(&"PaymentUnknown")).await?;
    let retry = order.status.and_then(|status| status.retry).expect("the status shows the retry");
    assert!(retry.last_error.contains("billing"), "{retry:?}");

    shop.stack.billing.restart().await?;
    shop.wait_settled().await?;
    assert_eq!(shop.balance("sven").await?, "300.0");
    Ok(())
}
