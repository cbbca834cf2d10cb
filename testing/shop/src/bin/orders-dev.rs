//! `orders-dev`, for development: runs the services on this machine with the cluster's control
//! plane, until Ctrl-C. `INTERACTION` selects the style of interaction.

use std::fs;

use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use orders_shop::{Interaction, Stack, StackOptions, interaction_from_env};
use orders_testbed::{Cache, Cluster, Inbox, Nats};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// The port of the public API.
const PORT: u16 = 8080;

/// The namespace of the orders.
const NAMESPACE: &str = "shop";

#[tokio::main]
async fn main() -> Result<()> {
    let cache = Cache::locate()?;
    // The handler is installed first, so that an early Ctrl-C also stops everything that was started.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = run(&cache) => result?,
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    println!("stopping the services");
    Ok(())
}

/// Starts the services and prints their URLs. Databases and logs are in the cache's directory `run/dev`.
async fn run(cache: &Cache) -> Result<()> {
    let directory = cache.run("dev");
    fs::create_dir_all(&directory)?;
    let cluster = Cluster::control_plane().await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client().await?);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    namespaces.patch(NAMESPACE, &PatchParams::apply("orders-testbed"), &Patch::Apply(namespace)).await?;

    let inbox = Inbox::start(&directory).await?;
    let interaction = interaction_from_env()?;
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
    println!("Ctrl-C stops the services; the control plane keeps running until `testbed down`");
    // The services run as long as these values live.
    std::future::pending().await
}
