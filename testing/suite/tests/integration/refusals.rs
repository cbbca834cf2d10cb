//! Tests of orders that Kubernetes refuses: the response has its reason at once, and nothing is placed.

use anyhow::Result;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        core::v1::{Namespace, ResourceQuota},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_testbed::{Cluster, wait_for};
use serde_json::json;

use crate::shop::{Response, Shop, WAIT_TIMEOUT};

impl Shop {
    /// Asserts that the order is refused with this status and reason, and that nothing was placed or charged.
    async fn assert_refused(&self, login: &str, status: u16, reason: &str) -> Result<Response> {
        let response = self.place_order(login, json!(100)).await?;
        response.assert_problem(status);
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains(reason), "{response:?}");
        assert!(!detail.contains("unknown"), "{response:?}");
        assert_eq!((self.all_orders().await?.len(), self.balance(login).await?), (0, "500.0".to_owned()));
        Ok(response)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_a_policy_forbids_is_answered_403_with_its_reason() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("otto", json!(500)).await?;
    let name = format!("forbid-{}", shop.stack.namespace);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(shop.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(shop.client.clone());
    let policy = json!({"metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"apiGroups": ["arch.homework"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["orders"]}
        ]},
        "validations": [{"expression": "object.spec.amount != '100.00'", "message": "one hundred is too much"}]
    }});
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": shop.stack.namespace}});
    let binding = json!({"metadata": {"name": name}, "spec": {
        "policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}
    }});
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    // The API server applies a new policy after a moment. Until then, an order of the same amount would be placed.
    let probe = json!({"apiVersion": "arch.homework/v1", "kind": "Order", "metadata": {"name": "probe"},
        "spec": {"login": "otto", "email": "otto@example.com", "cartId": 0, "amount": "100.00"}});
    wait_for("the policy", WAIT_TIMEOUT, || async {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        shop.orders().create(&dry_run, &serde_json::from_value(probe.clone()).ok()?).await.is_err().then_some(())
    })
    .await?;
    let refused = shop.assert_refused("otto", 403, "one hundred is too much").await;
    bindings.delete(&name, &DeleteParams::default()).await?;
    policies.delete(&name, &DeleteParams::default()).await?;
    refused.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_beyond_a_quota_is_answered_503_with_the_reason_of_kubernetes() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("olga", json!(500)).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let none = || json!({"count/orders.arch.homework": Quantity("0".to_owned())});
    let quota = json!({"metadata": {"name": "orders"}, "spec": {"hard": none()}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    // The quota controller does this in a cluster.
    let status = json!({"status": {"hard": none(), "used": none()}});
    quotas.patch_status("orders", &PatchParams::default(), &Patch::Merge(status)).await?;
    wait_for("the quota", WAIT_TIMEOUT, || async {
        (shop.place_order("olga", json!(100)).await.ok()?.status == 503).then_some(())
    })
    .await?;
    let refused = shop.assert_refused("olga", 503, "exceeded quota: orders").await?;
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_a_namespace_that_ends_is_answered_403_with_the_reason_of_kubernetes() -> Result<()> {
    let cluster = Cluster::control_plane().await?;
    let shop = Shop::start_with(&cluster, |options| options).await?;
    shop.open_account("oleg", json!(500)).await?;
    let namespaces: Api<Namespace> = Api::all(shop.client.clone());
    // A finalizer holds the namespace in its last phase.
    let quotas: Api<ResourceQuota> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let holder = json!({"metadata": {"name": "holder", "finalizers": ["example.com/hold"]}, "spec": {}});
    quotas.create(&PostParams::default(), &serde_json::from_value(holder)?).await?;
    namespaces.delete(&shop.stack.namespace, &DeleteParams::default()).await?;
    wait_for("the end of the namespace", WAIT_TIMEOUT, || async {
        namespaces.get(&shop.stack.namespace).await.ok()?.metadata.deletion_timestamp.map(drop)
    })
    .await?;
    let refused = shop.assert_refused("oleg", 403, "being terminated").await;
    let release = json!({"metadata": {"finalizers": null}});
    quotas.patch(&quotas.get("holder").await?.name_any(), &PatchParams::default(), &Patch::Merge(release)).await?;
    refused.map(drop)
}
