//! The clusters that tests work with.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};

use crate::cache::Cache;
use crate::control_plane::{self, ControlPlane, Settings};
use crate::gobuild::{self, Set};
use crate::other::Target;
use crate::process::Signal;
use crate::{PATIENCE, node, recorded, wait_for};

/// A Kubernetes API to test against.
#[derive(Debug)]
pub struct Cluster {
    /// The kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    private: Option<ControlPlane>,
}

impl Cluster {
    /// The control plane that all tests of this machine share: etcd, API
    /// server and controller manager on loopback, no node. Started if it does
    /// not run (about 5 s), and left running; `testbed down control-plane` ends it.
    /// A first call builds Kubernetes, which takes minutes: run
    /// `testbed up control-plane` before.
    ///
    /// # Errors
    /// When it cannot be built or does not become ready.
    pub async fn control_plane() -> Result<Self> {
        let cache = Cache::locate()?;
        let directory = cache.run("control-plane");
        let programs = gobuild::ensure(&cache, Set::ControlPlane).await?;
        let _lock = cache.lock("control-plane").await?;
        if !control_plane::is_healthy(&directory).await {
            if recorded::stop_all(&directory).await? > 0 {
                eprintln!("the control plane was not healthy; starting a new one");
            }
            let settings = Settings { recorded: true, preferred_port: Some(16443), ..private_settings(&directory) };
            if let Err(error) = ControlPlane::start(settings, &programs).await {
                recorded::stop_all(&directory).await?;
                return Err(error);
            }
            control_plane::mark_ready(&directory)?;
        }
        Ok(Self { kubeconfig: control_plane::kubeconfig(&directory), private: None })
    }

    /// A control plane for one test, which may break it. It writes below `directory`
    /// and ends when dropped.
    ///
    /// # Errors
    /// When it cannot be built or does not become ready.
    pub async fn private(directory: &Path) -> Result<Self> {
        Self::private_with(directory, &[]).await
    }

    /// The same, with more arguments for its API server.
    ///
    /// # Errors
    /// When it cannot be built or does not become ready.
    pub async fn private_with(directory: &Path, api_server_args: &[&str]) -> Result<Self> {
        let programs = gobuild::ensure(&Cache::locate()?, Set::ControlPlane).await?;
        let api_server_args = api_server_args.iter().map(|&arg| arg.to_owned()).collect();
        let settings = Settings { api_server_args, ..private_settings(&directory.join("control-plane")) };
        let plane = ControlPlane::start(settings, &programs).await?;
        Ok(Self { kubeconfig: plane.kubeconfig(), private: Some(plane) })
    }

    /// The same, with an etcd that waits for the disk, as one that matters does: for measurements.
    ///
    /// # Errors
    /// When it cannot be built or does not become ready.
    pub async fn durable(directory: &Path) -> Result<Self> {
        let programs = gobuild::ensure(&Cache::locate()?, Set::ControlPlane).await?;
        let settings = Settings { fsync: true, ..private_settings(&directory.join("control-plane")) };
        let plane = ControlPlane::start(settings, &programs).await?;
        Ok(Self { kubeconfig: plane.kubeconfig(), private: Some(plane) })
    }

    /// The whole node that `testbed up node` started, kind's cluster or the
    /// user's own, as `CLUSTER` and `KUBE_CONTEXT` say.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn node() -> Result<Self> {
        let cache = Cache::locate()?;
        let target = Target::from_environment()?;
        let kubeconfig = control_plane::kubeconfig(&target.directory(&cache));
        let runs = match target {
            Target::Testbed => node::is_healthy(&cache).await,
            Target::Kind | Target::Context(_) => kubeconfig.exists(),
        };
        if !runs {
            bail!("the cluster for the chart does not run; start it with `testbed up node`");
        }
        Ok(Self { kubeconfig, private: None })
    }

    /// A client with an administrator's rights.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        control_plane::client(&self.kubeconfig).await
    }

    /// Where the etcd of a [private](Self::private) cluster answers, in JSON as well as in gRPC.
    ///
    /// # Errors
    /// When the cluster is not private.
    pub fn etcd_url(&self) -> Result<String> {
        let plane = self.private.as_ref().context("the etcd of a shared cluster is nobody's to look into")?;
        Ok(plane.etcd_url())
    }

    /// Makes a namespace with a name of its own, `<prefix>-…`, and waits until
    /// pods could be created in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{:x}-{}-{number}", since.as_secs(), std::process::id());
        let client = self.client().await?;
        let namespace =
            Namespace { metadata: ObjectMeta { name: Some(name.clone()), ..Default::default() }, ..Default::default() };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let accounts = Api::<ServiceAccount>::namespaced(client, &name);
        wait_for("the namespace's default service account", PATIENCE, || async {
            accounts.get("default").await.ok()
        })
        .await?;
        Ok(name)
    }

    /// Kills the API server of a [private](Self::private) cluster, as a crash would.
    ///
    /// # Errors
    /// When the cluster is not private.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.own()?.kill_api_server()
    }

    /// Starts the API server again, with the data it had, and waits until it is ready.
    ///
    /// # Errors
    /// When the cluster is not private or the API server does not become ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let plane = self.own()?;
        plane.kill_api_server()?;
        plane.start_api_server().await
    }

    /// Freezes the API server of a private cluster: its connections stay open
    /// and silent until [`thaw_api_server`](Self::thaw_api_server).
    ///
    /// # Errors
    /// When the cluster is not private or its API server is stopped.
    pub fn freeze_api_server(&mut self) -> Result<()> {
        self.own()?.signal_api_server(Signal::STOP)
    }

    /// Lets a frozen API server go on.
    ///
    /// # Errors
    /// When the cluster is not private or its API server is stopped.
    pub fn thaw_api_server(&mut self) -> Result<()> {
        self.own()?.signal_api_server(Signal::CONT)
    }

    fn own(&mut self) -> Result<&mut ControlPlane> {
        self.private.as_mut().context("this cluster is shared; use Cluster::private to stop its API server")
    }
}

fn private_settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        name: "orders-control-plane",
        address: std::net::Ipv4Addr::LOCALHOST,
        preferred_port: None,
        recorded: false,
        service_range: "10.97.0.0/16",
        has_node: false,
        api_server_args: Vec::new(),
        fsync: false,
    }
}

/// Has the API server issue a token of a service account, valid for an hour, as
/// the kubelet does for a pod, and writes it to a file. The account is made if
/// it does not exist. Returns the account's user name.
///
/// # Errors
/// When the token is refused or the file cannot be written.
pub async fn service_account_token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
    file: &Path,
) -> Result<String> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    if accounts.get_opt(account).await?.is_none() {
        let new = ServiceAccount {
            metadata: ObjectMeta { name: Some(account.to_owned()), ..Default::default() },
            ..Default::default()
        };
        match accounts.create(&PostParams::default(), &new).await {
            // Another test may have made it in the meantime.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => drop(result.with_context(|| format!("cannot make service account {account}"))?.name_any()),
        }
    }
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(3600),
            ..Default::default()
        }),
        ..Default::default()
    };
    let issued = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let Some(token) = issued.status.and_then(|status| status.token) else {
        bail!("the API server issued no token for {account}")
    };
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(file, token).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(format!("system:serviceaccount:{namespace}:{account}"))
}
