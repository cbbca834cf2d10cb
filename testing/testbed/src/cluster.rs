//! The clusters that tests use.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};

use crate::cache::Cache;
use crate::control_plane::{self, ControlPlane, Settings};
use crate::external::Target;
use crate::gobuild::{self, Set};
use crate::process::Signal;
use crate::{WAIT_TIMEOUT, node, recorded, wait_for};

/// A Kubernetes API to test against.
#[derive(Debug)]
pub struct Cluster {
    /// The kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    private: Option<ControlPlane>,
}

impl Cluster {
    /// The control plane that all tests of this machine share: etcd, API
    /// server and controller manager on loopback, without a node. If it does not run, it is started
    /// (about 5 s). It keeps running; `testbed down control-plane` stops it.
    /// The first call on a machine builds Kubernetes, which takes minutes: run
    /// `testbed up control-plane` before.
    ///
    /// # Errors
    /// If the control plane cannot be built or does not become ready.
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

    /// A control plane for one test only, which may break it. It writes below `directory`
    /// and stops when dropped.
    ///
    /// # Errors
    /// If it cannot be built or does not become ready.
    pub async fn private(directory: &Path) -> Result<Self> {
        Self::private_with(directory, &[]).await
    }

    /// Starts a [private](Self::private) control plane with additional arguments for its API server.
    ///
    /// # Errors
    /// If it cannot be built or does not become ready.
    pub async fn private_with(directory: &Path, api_server_args: &[&str]) -> Result<Self> {
        let programs = gobuild::ensure(&Cache::locate()?, Set::ControlPlane).await?;
        let api_server_args = api_server_args.iter().map(|&arg| arg.to_owned()).collect();
        let settings = Settings { api_server_args, ..private_settings(&directory.join("control-plane")) };
        let plane = ControlPlane::start(settings, &programs).await?;
        Ok(Self { kubeconfig: plane.kubeconfig(), private: Some(plane) })
    }

    /// Starts a [private](Self::private) control plane whose etcd waits for the disk, as in production: for
    /// measurements.
    ///
    /// # Errors
    /// If it cannot be built or does not become ready.
    pub async fn durable(directory: &Path) -> Result<Self> {
        let programs = gobuild::ensure(&Cache::locate()?, Set::ControlPlane).await?;
        let settings = Settings { fsync: true, ..private_settings(&directory.join("control-plane")) };
        let plane = ControlPlane::start(settings, &programs).await?;
        Ok(Self { kubeconfig: plane.kubeconfig(), private: Some(plane) })
    }

    /// The complete node that `testbed up node` started, the kind cluster, or the
    /// user's own cluster. `CLUSTER` and `KUBE_CONTEXT` select it.
    ///
    /// # Errors
    /// If the cluster does not run.
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
    /// If the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        control_plane::client(&self.kubeconfig).await
    }

    /// The URL of the etcd of a [private](Self::private) cluster, for JSON and gRPC.
    ///
    /// # Errors
    /// If the cluster is not private.
    pub fn etcd_url(&self) -> Result<String> {
        let plane = self.private.as_ref().context("this cluster is shared; use Cluster::private to read its etcd")?;
        Ok(plane.etcd_url())
    }

    /// Creates a namespace with a unique name, `<prefix>-…`, and waits until
    /// pods can be created in it.
    ///
    /// # Errors
    /// If the namespace cannot be created.
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
        wait_for("the namespace's default service account", WAIT_TIMEOUT, || async { accounts.get("default").await.ok() })
            .await?;
        Ok(name)
    }

    /// Kills the API server of a [private](Self::private) cluster, as a crash would.
    ///
    /// # Errors
    /// If the cluster is not private.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.private_plane()?.kill_api_server()
    }

    /// Restarts the API server with its previous data, and waits until it is ready.
    ///
    /// # Errors
    /// If the cluster is not private or the API server does not become ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let plane = self.private_plane()?;
        plane.kill_api_server()?;
        plane.start_api_server().await
    }

    /// Makes a snapshot of etcd's data: a copy of its database, while etcd is stopped.
    ///
    /// # Errors
    /// If the cluster is not private, or does not become ready again.
    pub async fn back_up_etcd(&mut self, snapshot: &Path) -> Result<()> {
        let copy = |data: &Path| Ok(std::fs::copy(data.join("member/snap/db"), snapshot).map(drop)?);
        self.private_plane()?.change_etcd_data(copy).await
    }

    /// Restores a snapshot that [`back_up_etcd`](Self::back_up_etcd) made, with `etcdutl snapshot restore`. What was
    /// stored since then is lost. The revision increases, so that watchers do not continue in the past, as etcd's
    /// documentation asks for a cluster of Kubernetes.
    ///
    /// # Errors
    /// If the cluster is not private, or does not become ready again.
    pub async fn restore_etcd(&mut self, snapshot: &Path) -> Result<()> {
        self.private_plane()?.restore_etcd(snapshot).await
    }

    /// Suspends the API server of a private cluster: its connections stay open, but it does not respond
    /// until [`resume_api_server`](Self::resume_api_server).
    ///
    /// # Errors
    /// If the cluster is not private or its API server is stopped.
    pub fn suspend_api_server(&mut self) -> Result<()> {
        self.private_plane()?.signal_api_server(Signal::STOP)
    }

    /// Resumes a suspended API server.
    ///
    /// # Errors
    /// If the cluster is not private or its API server is stopped.
    pub fn resume_api_server(&mut self) -> Result<()> {
        self.private_plane()?.signal_api_server(Signal::CONT)
    }

    fn private_plane(&mut self) -> Result<&mut ControlPlane> {
        self.private.as_mut().context("this cluster is shared; use Cluster::private to control its API server")
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

/// Requests a token of a service account from the API server, as the kubelet does for a pod, and
/// writes it to a file. The token is valid for an hour. The account is created if it does not exist.
/// Returns the account's user name.
///
/// # Errors
/// If the API server refuses the token or the file cannot be written.
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
            // Another test may have created the account in the meantime.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => drop(result.with_context(|| format!("cannot create the service account {account}"))?.name_any()),
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
