//! The inner loop of development: the services on this machine, the cluster's
//! control plane beside them.

use std::fs;

use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cache::Cache;
use crate::{Cluster, Inbox, Interaction, Nats, Stack, StackOptions};

/// Where the public API answers.
const PORT: u16 = 8080;

/// Where the orders are.
const NAMESPACE: &str = "shop";

/// Runs the services as processes until `interrupted` resolves, talking in the
/// style that `INTERACTION` names. Databases and logs are kept in the cache's `run/dev`.
///
/// # Errors
/// When one of them does not become ready.
pub async fn run(cache: &Cache, interrupted: impl Future<Output = Result<()>>) -> Result<()> {
    let directory = cache.run("dev");
    fs::create_dir_all(&directory)?;
    let cluster = Cluster::control_plane().await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client().await?);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    namespaces.patch(NAMESPACE, &PatchParams::apply("orders-testbed"), &Patch::Apply(namespace)).await?;

    let inbox = Inbox::start(&directory).await?;
    let interaction = Interaction::from_env()?;
    let nats = match interaction {
        Interaction::Http => None,
        _ => Some(Nats::start(&directory).await?),
    };
    let nats_access = nats.as_ref().map(Nats::access);
    let options = StackOptions { port: Some(PORT), interaction, nats: nats_access, ..StackOptions::new(inbox.smtp_url()) };
    let stack = Stack::start_in(&cluster, NAMESPACE, &directory, options).await?;
    println!("api      {}  (documentation at /docs/)", stack.api_server.url);
    println!("inbox    {}", inbox.http_url());
    if let Some(nats) = &nats {
        println!("nats     {}  (user admin, password {})", nats.url(), nats.password("admin"));
    }
    println!("logs     {}/*.log", directory.display());
    println!("kubectl  export KUBECONFIG={}; kubectl get orders -n {NAMESPACE}", cluster.kubeconfig.display());
    println!("Ctrl-C ends the services; the control plane stays (testbed down)");
    interrupted.await?;
    println!("ending the services");
    Ok(())
}
