//! Two releases for the same orders, each with its own ledger: one charges them, the other one says why it does not.

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use orders_crds::{LEDGER_LEASE, Order, OrderSpec, Outcome};
use orders_shop::{Service, Stack, StackOptions};
use orders_testbed::{Cluster, Signal, wait_until};
use serde_json::json;

use crate::shop::{Shop, WAIT_TIMEOUT, name};

/// Starts another release for the orders of the shop. Without a namespace, it watches all namespaces.
async fn start_other(shop: &Shop, cluster: &Cluster, namespace: &str, all_namespaces: bool) -> Result<Stack> {
    let directory = shop.directory.path().join("other");
    std::fs::create_dir_all(&directory)?;
    let mut env = vec![("operator", "LEASE_NAME", "other-operator".to_owned())];
    if all_namespaces {
        env.push(("operator", "NAMESPACE", String::new()));
    }
    let options =
        StackOptions { interaction: orders_shop::Interaction::Http, nats: None, env, ..StackOptions::new(shop.inbox.smtp_url()) };
    let stack = Stack::spawn_in(cluster, namespace, &directory, options).await?;
    stack.billing.wait_ready().await?;
    Ok(stack)
}

/// Waits until this service is not ready because of the other ledger.
async fn wait_refused(shop: &Shop, service: &Service) -> Result<String> {
    let refused = wait_until("the service to say why it is not ready", WAIT_TIMEOUT, || async {
        let response = shop.http.get(service.readiness_url()).send().await.map_err(|error| error.to_string())?;
        let (status, text) = (response.status(), response.text().await.map_err(|error| error.to_string())?);
        if status == 503 && text.contains("belong to ledger") { Ok(text) } else { Err(format!("{status}: {text}")) }
    })
    .await;
    refused.with_context(|| service.process.output())
}

fn new_order(name: &str) -> Order {
    let (login, email) = ("anna".to_owned(), "anna@example.com".to_owned());
    Order::new(name, OrderSpec { login, email, amount: "100".to_owned(), ..OrderSpec::default() })
}

async fn wait_decided(client: &Client, namespace: &str, name: &str, expected: Outcome) -> Result<()> {
    let orders: Api<Order> = Api::namespaced(client.clone(), namespace);
    wait_until(&format!("{namespace}/{name} to be {expected:?}"), WAIT_TIMEOUT, || async {
        let order = orders.get(name).await.map_err(|error| error.to_string())?;
        if order.outcome() == expected { Ok(()) } else { Err(format!("{:?}", order.status)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_release_in_a_namespace_charges_nothing_and_says_why_until_the_first_is_gone() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let mut shop = Shop::start().await?;
    shop.open_account("anna", json!(1100)).await?;
    // Once an order is paid, the first release has claimed the namespace.
    assert_eq!(shop.place_order("anna", json!(100)).await?.status, 200);
    let other = start_other(&shop, &cluster, &shop.stack.namespace.clone(), false).await?;
    for service in [&other.operators[0], &other.api_server] {
        let text = wait_refused(&shop, service).await?;
        assert!(text.contains(&shop.stack.namespace), "{text}");
    }

    // The other operator does not take over while the first one is down.
    shop.stack.operators[0].kill()?;
    let id = shop.send(shop.order_request("anna", json!(100)).header("prefer", "respond-async")).await?.id();
    wait_refused(&shop, &other.operators[0]).await?;
    shop.stack.operators[0].restart().await?;
    shop.wait_order(&name(id), "paid", |order| order.outcome() == Outcome::Paid).await?;
    for _ in 0..5 {
        assert_eq!(shop.place_order("anna", json!(100)).await?.status, 200);
    }
    shop.wait_settled().await?;
    assert_eq!(shop.balance("anna").await?, "400.0");
    let accounts = shop.http.get(format!("{}/billing/account/anna", other.billing.url)).send().await?;
    assert_eq!(accounts.status(), 404, "the other release has not even opened an account");

    // Once the first release is gone with its orders and customers, the other one takes over.
    let delete = DeleteParams::default();
    shop.orders().delete_collection(&delete, &kube::api::ListParams::default()).await?;
    let customers: Api<orders_crds::Customer> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    customers.delete_collection(&delete, &kube::api::ListParams::default()).await?;
    wait_until("the orders to be gone", WAIT_TIMEOUT, || async {
        let orders = shop.all_orders().await.map_err(|error| error.to_string())?;
        if orders.is_empty() { Ok(()) } else { Err(format!("{} orders", orders.len())) }
    })
    .await?;
    shop.stack.operators[0].process.signal(Signal::TERM)?;
    other.operators[0].wait_ready().await?;
    other.api_server.wait_ready().await?;
    shop.orders().create(&PostParams::default(), &new_order("of-the-other")).await?;
    // The other ledger has no account for anna.
    let namespace = &shop.stack.namespace;
    let refused = wait_until("the order to be refused", WAIT_TIMEOUT, || async {
        let order = shop.orders().get("of-the-other").await.map_err(|error| error.to_string())?;
        if matches!(order.outcome(), Outcome::Refused(_)) { Ok(()) } else { Err(format!("{:?}", order.status)) }
    });
    refused.await?;
    let leases: Api<Lease> = Api::namespaced(shop.client.clone(), namespace);
    let claim = leases.get(LEDGER_LEASE).await?;
    assert!(claim.spec.and_then(|spec| spec.holder_identity).is_some());
    shop.stack.operators[0].restart_without_waiting()?;
    wait_refused(&shop, &shop.stack.operators[0]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_all_namespaces_leaves_those_of_another_ledger_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::private(directory.path()).await?;
    let mut shop = Shop::start_with(&cluster, |options| options).await?;
    shop.open_account("anna", json!(1000)).await?;
    assert_eq!(shop.place_order("anna", json!(100)).await?.status, 200);
    let elsewhere = cluster.namespace("elsewhere").await?;
    let other = start_other(&shop, &cluster, &elsewhere, true).await?;
    other.operators[0].wait_ready().await?;

    // Only the other operator runs when this order is placed. It handles a later one in another namespace.
    shop.stack.operators[0].kill()?;
    let id = shop.send(shop.order_request("anna", json!(100)).header("prefer", "respond-async")).await?.id();
    let orders: Api<Order> = Api::namespaced(shop.client.clone(), &elsewhere);
    orders.create(&PostParams::default(), &new_order("elsewhere")).await?;
    let refused = Outcome::Refused(orders_crds::Refusal::AccountNotFound);
    wait_decided(&shop.client, &elsewhere, "elsewhere", refused).await?;
    assert_eq!(shop.orders().get(&name(id)).await?.outcome(), Outcome::Undecided, "left alone");
    shop.stack.operators[0].restart().await?;
    shop.wait_settled().await?;
    assert_eq!(shop.balance("anna").await?, "800.0");
    let metrics = shop.http.get(other.operators[0].metrics_url()).send().await?.text().await?;
    assert!(metrics.contains("orders_namespaces_of_other_ledgers 1"), "{metrics}");
    let log = other.operators[0].process.output();
    assert!(log.contains(&format!("the orders and customers of namespace {} belong to ledger", shop.stack.namespace)), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ledger_gets_the_namespace_of_a_lost_one_only_without_its_orders_and_is_refused_calls_for_it() -> Result<()> {
    let mut shop = Shop::start_with_style(orders_shop::Interaction::Http, &Cluster::control_plane().await?, |mut options| {
        // A ledger of this test's own, whatever the database of the others is.
        options.billing_database = None;
        options
    })
    .await?;
    shop.open_account("anna", json!(500)).await?;
    let id = shop.place_order("anna", json!(100)).await?.id();
    shop.wait_settled().await?;

    // The volume of the ledger is lost while an order is on its way.
    shop.stack.billing.kill()?;
    let undecided = shop.send(shop.order_request("anna", json!(100)).header("prefer", "respond-async")).await?.id();
    shop.wait_order(&name(undecided), "tried", |order| order.status.as_ref().is_some_and(|status| status.retry.is_some()))
        .await?;
    for file in ["billing.db", "billing.db-wal", "billing.db-shm"] {
        let _ = std::fs::remove_file(shop.directory.path().join(file));
    }
    shop.stack.billing.restart().await?;
    wait_refused(&shop, &shop.stack.operators[0]).await?;
    let order = shop.orders().get(&name(undecided)).await?;
    assert_eq!(order.outcome(), Outcome::Undecided, "the new ledger refused nothing: {:?}", order.status);

    // Without the orders of the old ledger, the release works again.
    let mut orders = vec![name(id), name(undecided)];
    for order in orders.drain(..) {
        let patch = json!({"metadata": {"finalizers": null}});
        let (api, params) = (shop.orders(), DeleteParams::default());
        if api.get_opt(&order).await?.is_some() {
            api.delete(&order, &params).await?;
            let _ = api.patch(&order, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await;
        }
    }
    shop.stack.operators[0].wait_ready().await?;
    shop.stack.api_server.wait_ready().await?;
    shop.open_account("anna", json!(500)).await?;
    assert_eq!(shop.place_order("anna", json!(100)).await?.status, 200);
    assert_eq!(shop.balance("anna").await?, "400.0");
    Ok(())
}
