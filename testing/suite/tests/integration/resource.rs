//! Tests of the Order as a Kubernetes resource: writes, events, columns and invalid objects.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResourceExt, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::ApiResource,
};
use orders_crds::{Order, Outcome};
use orders_testbed::{Cluster, wait_for};
use serde_json::json;

use crate::shop::{Shop, WAIT_TIMEOUT, name, reasons, was_notified_slowly};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_failures_costs_one_create_one_status_write_and_one_event() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("ines", json!(500)).await?;
    let orders = shop.orders();
    let mut attempts = 0;
    let (start, ids) = loop {
        let start = orders.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let ids = [shop.place_order("ines", json!(100)).await?.id(), shop.place_order("ines", json!(1000)).await?.id()];
        let settled = shop.wait_settled().await?;
        if !settled.iter().any(|order| ids.map(name).contains(&order.name_any()) && was_notified_slowly(order)) {
            break (start, ids);
        }
        attempts += 1;
        ensure!(attempts < 5, "notify was slow in each attempt: {settled:?}");
    };
    let expected = [
        ("Paid", "Charged 100.00 to ines; the balance is now 400.00. E-mail sent."),
        ("InsufficientFunds", "The balance of ines is 400.00, the order's amount 1000.00; nothing was charged. E-mail sent."),
    ];
    let events: Api<Event> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let of_order = async |id: i64| events.list(&ListParams::default().fields(&format!("regarding.name={}", name(id)))).await;
    for (id, _) in ids.iter().zip(expected) {
        wait_for("the Event", WAIT_TIMEOUT, || async { (!of_order(*id).await.ok()?.items.is_empty()).then_some(()) }).await?;
    }

    // All events of the orders since then, until a later order is finished.
    let last = name(shop.place_order("ines", json!(1)).await?.id());
    let mut changes = orders.watch(&WatchParams::default(), &start).await?.boxed();
    let (mut added, mut modified) = (0, 0);
    loop {
        match tokio::time::timeout(WAIT_TIMEOUT, changes.next()).await?.context("the watch ended")?? {
            WatchEvent::Added(order) if order.name_any() == last => {}
            WatchEvent::Modified(order) if order.name_any() == last => break,
            WatchEvent::Added(_) => added += 1,
            WatchEvent::Modified(_) => modified += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((added, modified), (2, 2), "one create and one status write each");
    // Passes end with their Event, so a second Event of an earlier order would have been published by now.
    for (id, (reason, note)) in ids.iter().zip(expected) {
        let published = of_order(*id).await?.items;
        let [event] = &*published else { panic!("{published:?}") };
        assert_eq!((event.reason.as_deref(), event.note.as_deref()), (Some(reason), Some(note)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_pending_then_decided_and_each_change_of_its_spec_is_observed() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("olga", json!(500)).await?;
    for operator in &shop.stack.operators {
        operator.kill()?;
    }
    let response = shop.send(shop.order_request("olga", json!(100)).header("prefer", "respond-async")).await?;
    let name = name(response.id());
    let states = |order: &Order| -> Vec<String> {
        let conditions = order.status.iter().flat_map(|status| &status.conditions);
        conditions.map(|condition| format!("{}={} {}", condition.type_, condition.status, condition.reason)).collect()
    };
    assert_eq!(states(&shop.orders().get(&name).await?), ["Succeeded=Unknown Pending", "Decided=Unknown Pending"]);
    assert_eq!(shop.get(&format!("/orders/{}", response.id())).await?.json()["reason"], "Pending");

    for operator in &mut shop.stack.operators {
        operator.restart().await?;
    }
    let is_sent = |order: &Order| order.status.as_ref().is_some_and(|status| status.is_notified());
    let paid = shop.wait_order(&name, "paid", is_sent).await?;
    assert_eq!(states(&paid), ["Succeeded=True Paid", "Decided=True Paid", "Paid=True Paid", "Notified=True Sent"]);
    let transitions = paid.status.iter().flat_map(|status| &status.conditions);
    assert!(
        transitions
            .map(|condition| condition.last_transition_time.0)
            .all(|time| Some(time) >= paid.creation_timestamp().map(|t| t.0))
    );

    // `kubectl wait`, Flux and Helm compare the generation with that of the status and of the condition.
    let patch = Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": 31_536_000}}));
    shop.orders().patch(&name, &PatchParams::default(), &patch).await?;
    let observed = |order: &Order| {
        let status = order.status.clone().unwrap_or_default();
        let generations = status.conditions.iter().map(|condition| condition.observed_generation);
        generations.chain([status.observed_generation]).all(|observed| observed == order.metadata.generation)
    };
    let changed = shop.wait_order(&name, "observed", observed).await?;
    assert_eq!((changed.metadata.generation, states(&changed)), (Some(2), states(&paid)));
    assert_eq!(shop.balance("olga").await?, "400.0", "charged once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_that_cannot_be_parsed_does_not_stop_the_others() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::private(directory.path()).await?;
    let shop = Shop::start_with(&cluster, |options| options).await?;
    shop.open_account("jana", json!(500)).await?;

    // The object is stored without the validation rules, as if it were older than they are.
    let crds: Api<CustomResourceDefinition> = Api::all(shop.client.clone());
    let loose = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [{
        "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    crds.patch(Order::crd_name(), &PatchParams::default(), &Patch::Merge(loose)).await?;
    let resource = ApiResource::erase::<Order>(&());
    let raw: Api<DynamicObject> = Api::namespaced_with(shop.client.clone(), &shop.stack.namespace, &resource);
    for (name, spec) in [
        ("broken", json!({"login": 7})),
        ("worthless", json!({"login": "jana", "email": "a@b.cd", "cartId": 0, "amount": "-5.00"})),
    ] {
        let object = DynamicObject::new(name, &resource).data(json!({ "spec": spec }));
        wait_for("the loose schema to take effect", WAIT_TIMEOUT, || async {
            raw.create(&PostParams::default(), &object).await.ok()
        })
        .await?;
    }

    // A change of the schema breaks all watches, which recover one by one.
    let response = shop.send(shop.order_request("jana", json!(100)).header("prefer", "wait=60")).await?;
    assert_eq!(response.status, 200, "other orders are processed: {response:?}");
    let refused = shop.wait_order("worthless", "refused", |order| order.outcome() != Outcome::Undecided).await?;
    assert!(reasons(&refused).contains(&"InvalidOrder"), "{refused:?}");
    let broken = wait_for("the condition of the order that cannot be parsed", WAIT_TIMEOUT, || async {
        let object = raw.get("broken").await.ok()?;
        object.data["status"]["conditions"].as_array().cloned()
    })
    .await?;
    assert!(broken.iter().any(|condition| condition["reason"] == "InvalidOrder"), "{broken:?}");
    assert_eq!(shop.balance("jana").await?, "400.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_status_never_turns_a_paid_order_into_a_refused_one() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("kira", json!(500)).await?;
    let paid = name(shop.place_order("kira", json!(100)).await?.id());
    let damaged = json!({"status": {"balance": "n/a", "retry": null}});
    let resource = ApiResource::erase::<Order>(&());
    let raw: Api<DynamicObject> = Api::namespaced_with(shop.client.clone(), &shop.stack.namespace, &resource);
    raw.patch_status(&paid, &PatchParams::default(), &Patch::Merge(damaged)).await?;

    let repaired = shop.wait_order(&paid, "repaired", |order| order.status.as_ref().is_some_and(|s| s.balance.is_some())).await?;
    assert_eq!(repaired.outcome(), Outcome::Paid);
    assert_eq!(repaired.status.unwrap_or_default().balance.map(|balance| balance.to_string()).as_deref(), Some("400.00"));
    assert_eq!(shop.balance("kira").await?, "400.0", "charged once");
    assert_eq!(shop.messages("kira").await?.len(), 1);
    Ok(())
}
