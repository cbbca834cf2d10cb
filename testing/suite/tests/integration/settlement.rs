//! Tests of charges whose order no longer exists: each is captured if its customer was told of it, and given back
//! otherwise.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_crds::{Order, OrderSpec, order::FINALIZER};
use orders_shop::Interaction;
use orders_testbed::{Cluster, Signal, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    charges::Operator,
    shop::{Response, Shop, WAIT_TIMEOUT, name},
};

/// Starts a shop whose operator soon looks for charges without an order. The fault tests run the other styles of
/// interaction: there, the broker may have the customer's message before the operator dies.
async fn start() -> Result<Shop> {
    start_on(&Cluster::control_plane().await?, &[]).await
}

async fn start_on(cluster: &Cluster, operator_env: &[(&'static str, &str)]) -> Result<Shop> {
    Shop::start_with_style(Interaction::Http, cluster, |mut options| {
        let settings = [("SETTLEMENT_INTERVAL_SECONDS", "1"), ("SETTLEMENT_MIN_AGE_SECONDS", "5")];
        let env = settings.iter().chain(operator_env);
        options.env.extend(env.map(|(name, value)| ("operator", *name, (*value).to_owned())));
        options
    })
    .await
}

impl Shop {
    async fn place_with_key(&self, login: &str, key: &str, prefer: &str) -> Result<Response> {
        let request = self.order_request(login, json!(100)).header("idempotency-key", key);
        self.send(request.header("prefer", prefer)).await
    }

    async fn wait_balance(&self, login: &str, balance: &str) -> Result<()> {
        wait_for(&format!("a balance of {balance}"), WAIT_TIMEOUT, || async {
            (self.balance(login).await.ok()? == balance).then_some(())
        })
        .await
    }

    /// Deletes an order, which disappears at once unless it has a finalizer.
    async fn delete_order(&self, id: i64) -> Result<()> {
        self.orders().delete(&name(id), &DeleteParams::default()).await?;
        Ok(())
    }

    /// The phase of the charge of the order with this UID.
    async fn charge_phase(&self, uid: &str) -> Result<Value> {
        let operator = Operator::new(self).await?;
        Ok(operator.send(Method::GET, &format!("/billing/charges/{uid}"), None, "").await?.json()["phase"].clone())
    }

    async fn wait_phase(&self, uid: &str, phase: &str) -> Result<()> {
        wait_for(&format!("the charge {uid} to be {phase}"), WAIT_TIMEOUT, || async {
            (self.charge_phase(uid).await.ok()? == phase).then_some(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charge_of_a_finished_order_is_captured() -> Result<()> {
    let shop = start().await?;
    shop.open_account("ada", json!(500)).await?;
    let id = shop.place_order("ada", json!(100)).await?.id();
    let uid = shop.orders().get(&name(id)).await?.uid().context("a UID")?;
    shop.wait_phase(&uid, "Captured").await?;
    let path = format!("/orders/{id}/charge");
    let shown = shop.get(&path).await?.json();
    assert_eq!((&shown["key"], &shown["phase"], &shown["refunded"]), (&json!(uid), &json!("Captured"), &json!(0.0)), "{shown}");
    // A cancellation refunds a captured charge.
    assert_eq!(shop.post_action(id, "cancel").await?.json()["reason"], "Refunded");
    assert_eq!(shop.get(&path).await?.json()["refunded"], 100.0);
    shop.get("/orders/4711/charge").await?.assert_problem(404);
    assert_eq!((shop.balance("ada").await?, shop.charge_phase(&uid).await?), ("500.0".to_owned(), json!("Captured")));
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_charged_and_deleted_while_the_operator_was_dead_is_voided_if_nobody_was_told() -> Result<()> {
    let mut shop = start().await?;
    shop.open_account("bela", json!(500)).await?;
    shop.stack.notify.process.signal(Signal::STOP)?;
    let id = shop.place_with_key("bela", "k", "respond-async").await?.id();
    shop.wait_balance("bela", "400.0").await?;
    shop.stack.operators[0].kill()?;
    shop.stack.notify.restart().await?;
    let uid = shop.orders().get(&name(id)).await?.uid().context("a UID")?;
    shop.delete_order(id).await?;
    assert_eq!((shop.texts("bela").await?, shop.charge_phase(&uid).await?), (Vec::new(), json!("Authorized")));

    shop.stack.operators[0].restart().await?;
    shop.wait_balance("bela", "500.0").await?;
    assert_eq!(shop.charge_phase(&uid).await?, "Voided");
    assert_eq!(shop.texts("bela").await?, ["Заказ отменён"]);
    let archived = shop.wait_archived(id).await?;
    assert_eq!((&archived["reason"], &archived["amount"]), (&json!("Cancelled"), &json!(100.0)), "{archived}");
    // A repeat under the key gets the same order.
    let repeat = shop.place_with_key("bela", "k", "wait=10").await?;
    assert_eq!((repeat.status, repeat.id()), (400, id), "{repeat:?}");
    assert_eq!(shop.balance("bela").await?, "500.0");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_deleted_while_the_operator_was_dead_stays_paid_if_its_customer_was_told() -> Result<()> {
    let mut shop = start().await?;
    shop.open_account("cleo", json!(500)).await?;
    // The message is stored and cannot be delivered, so the order is not archived yet.
    shop.inbox.stop()?;
    let id = shop.place_with_key("cleo", "k", "wait=10").await?.id();
    let uid = shop.wait_message_stored(&name(id)).await?.uid().context("a UID")?;
    shop.stack.operators[0].kill()?;
    shop.delete_order(id).await?;
    shop.inbox.restart().await?;

    shop.stack.operators[0].restart().await?;
    shop.wait_phase(&uid, "Captured").await?;
    let archived = shop.wait_archived(id).await?;
    assert_eq!((&archived["reason"], &archived["balance"]), (&json!("Paid"), &json!(400.0)), "{archived}");
    let repeat = shop.place_with_key("cleo", "k", "wait=10").await?;
    assert_eq!((repeat.status, repeat.id()), (200, id), "{repeat:?}");
    assert_eq!((shop.balance("cleo").await?, shop.texts("cleo").await?.len()), ("400.0".to_owned(), 1));
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_order_that_was_deleted_while_the_operator_was_dead_leaves_its_key_free() -> Result<()> {
    let mut shop = start().await?;
    shop.open_account("dora", json!(500)).await?;
    shop.stack.operators[0].kill()?;
    let id = shop.place_with_key("dora", "k", "respond-async").await?.id();
    shop.delete_order(id).await?;
    shop.stack.operators[0].restart().await?;
    let again = shop.place_with_key("dora", "k", "wait=30").await?;
    assert_eq!((again.status, again.id()), (200, id), "{again:?}");
    assert_eq!(shop.balance("dora").await?, "400.0");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charge_of_an_order_that_lost_its_finalizer_and_its_resource_is_voided() -> Result<()> {
    let mut shop = start().await?;
    shop.open_account("edda", json!(500)).await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("edda", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.wait_order(&name(id), "protected by its finalizer", |order| order.finalizers() == [FINALIZER]).await?;
    // The retry charges the order. The suspended notify delays the status until the operator is killed.
    shop.stack.notify.process.signal(Signal::STOP)?;
    shop.stack.billing.restart().await?;
    shop.wait_balance("edda", "400.0").await?;
    shop.stack.operators[0].kill()?;
    shop.stack.notify.restart().await?;
    let without_finalizer = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    shop.orders().patch(&name(id), &PatchParams::default(), &without_finalizer).await?;
    shop.delete_order(id).await?;

    shop.stack.operators[0].restart().await?;
    shop.wait_balance("edda", "500.0").await?;
    assert_eq!(shop.texts("edda").await?, ["Заказ отменён"]);
    assert_eq!(shop.wait_archived(id).await?["reason"], "Cancelled");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_deleted_before_the_operator_sees_its_cancellation_is_refunded() -> Result<()> {
    let mut shop = start().await?;
    shop.open_account("cora", json!(500)).await?;
    let id = shop.place_order("cora", json!(100)).await?.id();
    shop.wait_settled().await?;
    shop.stack.operators[0].kill()?;
    let cancel = shop.request(Method::POST, &format!("/orders/{id}/cancel")).header("prefer", "respond-async");
    assert_eq!(shop.send(cancel).await?.status, 202);
    shop.delete_order(id).await?;
    shop.stack.operators[0].restart().await?;
    shop.wait_balance("cora", "500.0").await?;
    wait_for("the deletion of the order", WAIT_TIMEOUT, || async {
        shop.orders().get_opt(&name(id)).await.ok()?.is_none().then_some(())
    })
    .await?;
    wait_for("the refund in the archive", WAIT_TIMEOUT, || async {
        (shop.get(&format!("/orders/{id}")).await.ok()?.json()["reason"] == "Refunded").then_some(())
    })
    .await?;
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_an_earlier_version_made_is_refunded_if_its_order_is_deleted_untold() -> Result<()> {
    let shop = start().await?;
    shop.open_account("emil", json!(500)).await?;
    // Once an order of somebody else is decided, the operator watches the orders.
    shop.place_with_key("nobody", "first", "wait=55").await?;
    shop.stack.operators[0].process.signal(Signal::STOP)?;
    let id = shop.place_with_key("emil", "k", "respond-async").await?.id();
    let uid = shop.orders().get(&name(id)).await?.uid().context("a UID")?;
    let body = json!({"login": "emil", "balance": 100}).to_string();
    let operator = Operator::new(&shop).await?;
    operator.send(Method::POST, "/billing/withdraw", Some(&uid), &body).await?;
    drop(operator);
    assert_eq!((shop.balance("emil").await?, shop.charge_phase(&uid).await?), ("400.0".to_owned(), json!("Captured")));
    shop.delete_order(id).await?;
    // The operator reads an order again that it first sees two seconds after its creation, and finds it deleted.
    tokio::time::sleep(Duration::from_secs(4)).await;
    shop.stack.operators[0].process.signal(Signal::CONT)?;
    shop.wait_balance("emil", "500.0").await?;
    assert_eq!(
        (shop.wait_archived(id).await?["reason"].clone(), shop.texts("emil").await?),
        (json!("Cancelled"), vec!["Заказ отменён".to_owned()])
    );
    shop.assert_audit_passes().await
}

/// Charges an account for an order that never existed, in this namespace. Returns the charge's key.
async fn charge_without_order(shop: &Shop, login: &str, namespace: &str, uid: &str) -> Result<()> {
    let manifest = json!({
        "apiVersion": "arch.homework/v1", "kind": "Order",
        "metadata": {"name": uid, "namespace": namespace, "uid": uid, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"login": login, "email": "nobody@example.com", "cartId": 0, "amount": "10.00"},
    });
    let authorization = json!({"reference": format!("{namespace}/{uid}"), "metadata": manifest});
    let body = json!({"login": login, "balance": 10, "authorization": authorization}).to_string();
    let charged = Operator::new(shop).await?.send(Method::POST, "/billing/withdraw", Some(uid), &body).await?;
    assert_eq!(charged.json()["outcome"], "Charged", "{charged:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_lost_refunds_nothing() -> Result<()> {
    let shop = start().await?;
    shop.open_account("fritz", json!(500)).await?;
    let id = shop.place_order("fritz", json!(100)).await?.id();
    let uid = shop.orders().get(&name(id)).await?.uid().context("a UID")?;
    shop.wait_phase(&uid, "Captured").await?;
    shop.delete_order(id).await?;
    shop.wait_archived(id).await?;
    assert_eq!(shop.lose_archived_orders().await?, 1);
    shop.get(&format!("/orders/{id}")).await?.assert_problem(404);
    // When a later charge without an order is voided, the operator has judged all charges without the archive's orders.
    charge_without_order(&shop, "fritz", &shop.stack.namespace, "5e2f31d4-0000-4000-8000-000000000001").await?;
    shop.wait_phase("5e2f31d4-0000-4000-8000-000000000001", "Voided").await?;
    assert_eq!((shop.balance("fritz").await?, shop.charge_phase(&uid).await?), ("400.0".to_owned(), json!("Captured")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_in_a_namespace_of_another_operator_is_left_alone() -> Result<()> {
    let shop = start().await?;
    shop.open_account("gerd", json!(500)).await?;
    let (elsewhere, here) = ("5e2f31d4-0000-4000-8000-000000000001", "5e2f31d4-0000-4000-8000-000000000002");
    charge_without_order(&shop, "gerd", "elsewhere", elsewhere).await?;
    charge_without_order(&shop, "gerd", &shop.stack.namespace, here).await?;
    shop.wait_phase(here, "Voided").await?;
    assert_eq!((shop.balance("gerd").await?, shop.charge_phase(elsewhere).await?), ("490.0".to_owned(), json!("Authorized")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_voided_while_the_archive_or_notify_does_not_respond() -> Result<()> {
    let mut shop = start().await?;
    shop.open_account("hedy", json!(500)).await?;
    let uid = "5e2f31d4-0000-4000-8000-000000000001";
    shop.stack.notify.kill()?;
    shop.stack.archive.kill()?;
    charge_without_order(&shop, "hedy", &shop.stack.namespace, uid).await?;
    let failures = |shop: &Shop, text: &str| shop.stack.operators[0].process.output().matches(text).count();
    let not_settled = "a charge without an order is not settled";
    wait_for("several attempts without the archive", WAIT_TIMEOUT, || async {
        (failures(&shop, not_settled) >= 2).then_some(())
    })
    .await?;
    shop.stack.archive.restart().await?;
    let before = failures(&shop, not_settled);
    wait_for("several attempts without notify", WAIT_TIMEOUT, || async {
        (failures(&shop, not_settled) >= before + 3).then_some(())
    })
    .await?;
    assert_eq!(shop.charge_phase(uid).await?, "Authorized");
    shop.stack.notify.restart().await?;
    shop.wait_phase(uid, "Voided").await?;
    assert_eq!((shop.balance("hedy").await?, shop.texts("hedy").await?), ("500.0".to_owned(), vec!["Заказ отменён".to_owned()]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_an_older_etcd_does_not_have_are_settled_and_their_names_stay_taken() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::private(directory.path()).await?;
    let mut shop = start_on(&cluster, &[]).await?;
    shop.open_account("iris", json!(500)).await?;
    assert_eq!(shop.place_with_key("iris", "before", "wait=10").await?.status, 200);
    let backup = directory.path().join("backup");
    cluster.back_up_etcd(&backup).await?;

    let captured = shop.place_with_key("iris", "captured", "wait=60").await?.id();
    let uid = shop.orders().get(&name(captured)).await?.uid().context("a UID")?;
    shop.wait_phase(&uid, "Captured").await?;
    // The customer is told, and the order is not archived.
    shop.inbox.stop()?;
    let told = shop.place_with_key("iris", "told", "wait=60").await?.id();
    let told_uid = shop.wait_message_stored(&name(told)).await?.uid().context("a UID")?;
    // The customer is not told.
    shop.stack.notify.process.signal(Signal::STOP)?;
    let untold = shop.place_with_key("iris", "untold", "respond-async").await?.id();
    shop.wait_balance("iris", "100.0").await?;
    shop.stack.operators[0].kill()?;
    shop.stack.notify.restart().await?;
    shop.inbox.restart().await?;
    cluster.restore_etcd(&backup).await?;
    shop.stack.api_server.restart().await?;
    shop.stack.operators[0].restart().await?;

    shop.wait_phase(&told_uid, "Captured").await?;
    shop.wait_balance("iris", "200.0").await?;
    for (id, reason) in [(captured, "Paid"), (told, "Paid"), (untold, "Cancelled")] {
        assert_eq!(shop.wait_archived(id).await?["reason"], reason, "{id}");
    }
    for (key, id, status) in [("captured", captured, 200), ("told", told, 200), ("untold", untold, 400)] {
        let repeat = shop.place_with_key("iris", key, "wait=10").await?;
        assert_eq!((repeat.status, repeat.id()), (status, id), "{key}: {repeat:?}");
    }
    assert_eq!(shop.balance("iris").await?, "200.0");
    let audit = shop.stack.audit(&cluster).run(&[], WAIT_TIMEOUT).await?;
    assert_eq!(audit.exit_code, Some(0), "{}", audit.output);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charges_of_a_deleted_namespace_are_settled() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let namespace = cluster.namespace("gone").await?;
    let mut shop = start_on(&cluster, &[("NAMESPACE", &namespace)]).await?;
    shop.open_account("jana", json!(500)).await?;
    let orders: Api<Order> = Api::namespaced(shop.client.clone(), &namespace);
    let place = async |name: &str| {
        let (login, email) = ("jana".to_owned(), "jana@example.com".to_owned());
        let spec = OrderSpec { login, email, amount: "100".to_owned(), ..OrderSpec::default() };
        orders.create(&PostParams::default(), &Order::new(name, spec)).await?.uid().context("a UID")
    };
    // The customer is told of the first order, and not of the second.
    shop.inbox.stop()?;
    let told = place("told").await?;
    wait_for("the message", WAIT_TIMEOUT, || async { (shop.texts("jana").await.ok()?.len() == 1).then_some(()) }).await?;
    shop.stack.notify.process.signal(Signal::STOP)?;
    let untold = place("untold").await?;
    shop.wait_balance("jana", "300.0").await?;
    shop.stack.operators[0].kill()?;
    shop.stack.notify.restart().await?;
    shop.inbox.restart().await?;
    let namespaces: Api<Namespace> = Api::all(shop.client.clone());
    namespaces.delete(&namespace, &DeleteParams::default()).await?;
    wait_for("the deletion of the namespace", WAIT_TIMEOUT, || async {
        namespaces.get_opt(&namespace).await.ok()?.is_none().then_some(())
    })
    .await?;
    let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
    namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await?;
    shop.stack.operators[0].restart().await?;
    shop.wait_phase(&told, "Captured").await?;
    shop.wait_phase(&untold, "Voided").await?;
    assert_eq!((shop.balance("jana").await?, shop.texts("jana").await?.len()), ("400.0".to_owned(), 2));
    Ok(())
}
