//! The promise for connections to the Kubernetes API that go silent: within a minute, every watch works again.

use std::time::Duration;

use anyhow::Result;
use kube::api::PostParams;
use orders_crds::{Order, OrderSpec, Outcome};
use orders_testbed::{Cluster, wait_until};
use serde_json::json;

use crate::{
    shop::{Shop, name},
    silent_proxy::SilentProxy,
};

/// The promise of docs/explanation/reliability.md. The watches need about half of it.
const PROMISE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_charged_and_listed_within_a_minute_after_all_connections_went_silent() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let directory = tempfile::tempdir()?;
    let proxy = SilentProxy::start(&cluster, directory.path()).await?;
    let kubeconfig = proxy.kubeconfig.display().to_string();
    let shop = Shop::start_with(&cluster, |options| {
        let env = ["operator", "api-server"].map(|service| (service, "KUBECONFIG", kubeconfig.clone()));
        orders_shop::StackOptions { env: env.to_vec(), ..options }
    })
    .await?;
    shop.open_account("anna", json!(500)).await?;
    assert_eq!(shop.place_order("anna", json!(100)).await?.status, 200);
    shop.wait_settled().await?;

    let opened = proxy.opened();
    proxy.silence();
    let spec = OrderSpec {
        login: "anna".to_owned(),
        email: "anna@example.com".to_owned(),
        amount: "100".to_owned(),
        ..OrderSpec::default()
    };
    let id = 424_242;
    shop.orders().create(&PostParams::default(), &Order::new(&name(id), spec)).await?;
    let decided = wait_until("the order to be paid", PROMISE, || async {
        let order = shop.orders().get(&name(id)).await.map_err(|error| error.to_string())?;
        if order.outcome() == Outcome::Paid { Ok(()) } else { Err(format!("{:?}", order.status)) }
    });
    let listed = wait_until("the API to list the order", PROMISE, || async {
        let orders = shop.get("/orders/").await.map_err(|error| error.to_string())?;
        if orders.text.contains("424242") { Ok(()) } else { Err(orders.text) }
    });
    let (decided, listed) = tokio::join!(decided, listed);
    decided?;
    listed?;
    assert_eq!(shop.balance("anna").await?, "300.0", "charged once");
    assert!(proxy.opened() > opened, "the operator and the api-server connected again");
    Ok(())
}
