//! `orders-dev`, the inner loop of development: the services on this machine, the cluster's control
//! plane beside them, until Ctrl-C. `INTERACTION` names the style in which they talk.

use std::fs;

use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use orders_shop::{Interaction, Stack, StackOptions};
use orders_testbed::{Cache, Cluster, Inbox, Nats};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Where the public API answers.
const PORT: u16 = 8080;

/// Where the orders are.
const NAMESPACE: &str = "shop";

#[tokio::main]
async fn main() -> Result<()> {
    let cache = Cache::locate()?;
    // From here on, so that an early Ctrl-C ends what was started, too.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = run(&cache) => result?,
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    println!("ending the services");
    Ok(())
}

/// Starts the services and says where they are. Databases and logs are kept in the cache's `run/dev`.
async fn run(cache: &Cache) -> Result<()> {
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
    // They run as long as these values live.
    std::future::pending().await
}
