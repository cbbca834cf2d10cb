//! Installs the CRDs of this checkout.

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use orders_crds::{Customer, Order};
use orders_testbed::{WAIT_TIMEOUT, wait_for};

/// Installs the CRDs that this checkout generates, and waits until the API server serves them.
///
/// # Errors
/// If the API server refuses one, or does not serve it in time.
pub async fn install_crds(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in orders_crds::all() {
        let params = PatchParams::apply("orders-testbed").force();
        crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.context("installing the CRDs")?;
    }
    wait_for("the CRDs to be served", WAIT_TIMEOUT, || {
        let orders: Api<Order> = Api::namespaced(client.clone(), "default");
        let customers: Api<Customer> = Api::namespaced(client.clone(), "default");
        let one = kube::api::ListParams::default().limit(1);
        async move {
            orders.list(&one).await.ok()?;
            customers.list(&one).await.ok()
        }
    })
    .await?;
    Ok(())
}
