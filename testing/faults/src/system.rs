//! The system under test: real services, real servers, and a proxy on each channel between them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use futures::TryStreamExt;
use kube::{Api, Client};
use orders_contracts::topology::Stream;
use orders_crds::Order;
use orders_shop::{Audit, Database, Interaction, Stack, StackOptions};
use orders_testbed::{Cluster, Inbox, Nats, Postgres, WAIT_TIMEOUT, wait_for};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    actors::Actors,
    effect::{Channel, Component},
    fault_injector::FaultInjector,
    proxy::{
        Interceptor,
        http::{self, Upstream},
        mail, nats, postgres,
    },
};

/// The number of operators in a system, of which one is active at a time.
pub const OPERATORS: usize = 2;

/// The time limit for a database to recover, after which the audit fails.
const AUDIT_TIMEOUT: Duration = WAIT_TIMEOUT;

/// The exit code of `orders-audit` if a server does not respond.
const AUDIT_INCOMPLETE: i32 = 2;

/// The style of interaction and the database of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The style of interaction.
    pub interaction: Interaction,
    /// The kind of database.
    pub database: Database,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.interaction.as_str(), self.database.as_str())
    }
}

/// The TTL of finished orders with the workload `Removal`. It is long enough for the workload to read them first.
const TTL_SECONDS: &str = "2";

/// A workload: what customers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// Customers place orders, cancel one, and request that another is charged again.
    Life,
    /// Customers place an order, wait until it is archived and deleted, and request it again.
    Removal,
}

/// The settings of a system.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The style of interaction and the database.
    pub kind: Kind,
    /// The workload of its customers.
    pub workload: Workload,
    /// A bug to seed in the services, if any.
    pub seeded_bug: Option<&'static str>,
    /// The directory of SQLite files; by default that of the logs.
    pub data: Option<PathBuf>,
}

/// A running system under test.
pub struct System {
    /// The fault injector, which records effects and assigns faults to them.
    pub injector: Arc<FaultInjector>,
    /// The processes.
    pub actors: Arc<OnceLock<Actors>>,
    /// The mail server.
    pub inbox: Inbox,
    /// The broker, if the style of interaction uses one.
    pub nats: Option<tokio::sync::Mutex<Nats>>,
    /// A client with administrator permissions in the cluster.
    pub client: Client,
    /// The customers' HTTP client.
    pub http: reqwest::Client,
    /// Base URL of the public API.
    pub url: String,
    /// The namespace of the orders.
    pub namespace: String,
    // This field is dropped first, so that no component is restarted during shutdown.
    _restarter: AbortOnDropHandle<()>,
    broker_admin: Option<(String, String)>,
    audit: Audit,
    // This field is dropped last, so that the directory is deleted after the processes that write to it have stopped.
    directory: TempDir,
}

impl System {
    /// Starts a system in a new namespace on the shared control plane.
    ///
    /// # Errors
    /// If a component does not become ready.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let cluster = Cluster::control_plane().await?;
        let client = cluster.client().await?;
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let server = match setup.kind.database {
            Database::Postgres => Some(Postgres::start(directory.path()).await?),
            Database::Sqlite => None,
        };
        let proxies = Proxies { directory: directory.path(), client: &client, injector: Arc::default(), actors: Arc::default() };
        let (billing, notify, archive) = (Arc::default(), Arc::default(), Arc::default());
        let mut options = StackOptions { operators: OPERATORS, ..StackOptions::new(proxies.mail(&inbox).await?) };
        options.interaction = setup.kind.interaction;
        let nats = match setup.kind.interaction {
            Interaction::Http => None,
            _ => Some(Nats::start(directory.path()).await?),
        };
        options.nats = nats.as_ref().map(Nats::access);
        if let Some(nats) = &nats {
            options.env.extend([
                ("operator-0", "NATS_URL", proxies.broker(Channel::OperatorToBroker, Component::Operator(0), nats).await?),
                ("operator-1", "NATS_URL", proxies.broker(Channel::OperatorToBroker, Component::Operator(1), nats).await?),
                ("notify", "NATS_URL", proxies.broker(Channel::NotifyToBroker, Component::Notify, nats).await?),
            ]);
        }
        if let (Some(nats), Interaction::Broker) = (&nats, setup.kind.interaction) {
            options.env.push(("billing", "NATS_URL", proxies.broker(Channel::BillingToBroker, Component::Billing, nats).await?));
        }
        if let Some(server) = &server {
            let (billing, notify) = (server.database("billing")?, server.database("notify")?);
            let archive = server.database("archive")?;
            options.billing_database = Some(proxies.database(Channel::BillingToDatabase, Component::Billing, &billing).await?);
            options.notify_database = Some(proxies.database(Channel::NotifyToDatabase, Component::Notify, &notify).await?);
            options.archive_database = Some(proxies.database(Channel::ArchiveToDatabase, Component::Archive, &archive).await?);
        } else if let Some(data) = &setup.data {
            options.billing_database = Some(format!("sqlite://{}/billing.db", data.display()));
            options.notify_database = Some(format!("sqlite://{}/notify.db", data.display()));
        }
        for (number, name) in ["operator-0", "operator-1"].into_iter().enumerate().take(OPERATORS) {
            let operator = Component::Operator(number);
            options.env.extend([
                (name, "KUBECONFIG", proxies.kube(Channel::OperatorToKube, operator).await?),
                (name, "BILLING_URL", proxies.service(Channel::OperatorToBilling, operator, &billing).await?),
                (name, "NOTIFY_URL", proxies.service(Channel::OperatorToNotify, operator, &notify).await?),
                (name, "ARCHIVE_URL", proxies.service(Channel::OperatorToArchive, operator, &archive).await?),
            ]);
        }
        options.env.extend([
            ("api-server", "KUBECONFIG", proxies.kube(Channel::ApiServerToKube, Component::ApiServer).await?),
            ("api-server", "BILLING_URL", proxies.service(Channel::ApiServerToBilling, Component::ApiServer, &billing).await?),
            ("api-server", "ARCHIVE_URL", proxies.service(Channel::ApiServerToArchive, Component::ApiServer, &archive).await?),
        ]);
        if setup.workload == Workload::Removal {
            options.env.push(("operator", "TTL_SECONDS_AFTER_FINISHED", TTL_SECONDS.to_owned()));
        }
        if let Some(bug) = setup.seeded_bug {
            options.env.extend(["operator", "billing", "notify"].map(|service| (service, "SEEDED_BUG", bug.to_owned())));
        }
        let settlement = [("SETTLEMENT_INTERVAL_SECONDS", "2"), ("SETTLEMENT_MIN_AGE_SECONDS", "5")];
        options.env.extend(settlement.map(|(name, value)| ("operator", name, value.to_owned())));
        let namespace = cluster.namespace("faults").await?;
        // The proxies to the services need the services' addresses before the first request.
        let stack = Stack::start_in(&cluster, &namespace, directory.path(), options).await?;
        let authority = |url: &str| url.trim_start_matches("http://").to_owned();
        billing.get_or_init(|| authority(&stack.billing.url));
        notify.get_or_init(|| authority(&stack.notify.url));
        archive.get_or_init(|| authority(&stack.archive.url));
        let (url, audit) = (stack.api_server.url.clone(), stack.audit(&cluster));
        ensure!(proxies.actors.set(Actors::new(stack, server, client.clone())).is_ok(), "the actors are set once");
        let actors = proxies.actors.clone();
        let restarter = tokio::spawn(async move {
            if let Some(actors) = actors.get() {
                actors.keep_running().await;
            }
        });
        let system = System {
            _restarter: AbortOnDropHandle::new(restarter),
            injector: proxies.injector.clone(),
            actors: proxies.actors.clone(),
            inbox,
            broker_admin: nats.as_ref().map(|nats| (nats.url(), nats.password("admin").to_owned())),
            nats: nats.map(tokio::sync::Mutex::new),
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?,
            url,
            audit,
            namespace,
            client,
            directory,
        };
        Ok(system)
    }

    /// The processes.
    ///
    /// # Panics
    /// Never, since a running system has its processes.
    pub fn actors(&self) -> &Actors {
        self.actors.get().expect("a running system has actors")
    }

    /// A JetStream context with administrator permissions; `None` if the style uses no broker.
    ///
    /// # Errors
    /// If the broker does not respond.
    pub async fn jetstream(&self) -> Result<Option<jetstream::Context>> {
        let Some((url, password)) = &self.broker_admin else { return Ok(None) };
        let options = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), password.clone());
        Ok(Some(jetstream::new(options.connect(url).await?)))
    }

    /// Waits until the broker has delivered all messages and all of them are acknowledged.
    ///
    /// # Errors
    /// If that takes longer than `limit`.
    pub async fn wait_delivered(&self, limit: Duration) -> Result<()> {
        let Some(jetstream) = self.jetstream().await? else { return Ok(()) };
        wait_for("all messages to be acknowledged", limit, || async {
            for stream in Stream::CONSUMED {
                let Ok(stream) = jetstream.get_stream(stream.name()).await else { continue };
                let consumers: Vec<_> = stream.consumers().try_collect().await.ok()?;
                // The durable consumer of a style that is not in use has no client that acknowledges, and no messages.
                if consumers.iter().any(|consumer| consumer.num_pending > 0 || consumer.num_ack_pending > 0) {
                    return None;
                }
            }
            Some(())
        })
        .await
    }

    /// The orders.
    pub fn orders(&self) -> Api<Order> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs `orders-audit` over the complete history of this system, as soon as all servers that it reads
    /// respond again.
    ///
    /// # Errors
    /// If the audit finds a violation or cannot be completed. The error contains its report.
    pub async fn audit(&self) -> Result<()> {
        let run_audit = || self.audit.run(&[], AUDIT_TIMEOUT);
        let result = wait_for("a complete audit", AUDIT_TIMEOUT, || async {
            run_audit().await.ok().filter(|result| result.exit_code != Some(AUDIT_INCOMPLETE))
        })
        .await;
        match result {
            Ok(result) => ensure!(result.exit_code == Some(0), "orders-audit: {}", result.output),
            Err(error) => bail!("{error}: {}", run_audit().await?.output),
        }
        Ok(())
    }

    /// Keeps the system's files for inspection, and returns their directory.
    pub fn keep(self) -> PathBuf {
        self.directory.keep()
    }
}

/// Creates the proxies of a system.
struct Proxies<'a> {
    directory: &'a Path,
    client: &'a Client,
    injector: Arc<FaultInjector>,
    actors: Arc<OnceLock<Actors>>,
}

impl Proxies<'_> {
    fn interceptor(&self, channel: Channel, component: Component) -> Interceptor {
        Interceptor { channel, component, injector: self.injector.clone(), actors: self.actors.clone() }
    }

    /// A kubeconfig that connects to the Kubernetes API through a proxy.
    async fn kube(&self, channel: Channel, component: Component) -> Result<String> {
        let port = http::serve(self.interceptor(channel, component), Upstream::Kube(self.client.clone())).await?;
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        let path = self.directory.join(format!("{component:?}.kubeconfig"));
        std::fs::write(&path, config.to_string())?;
        Ok(path.display().to_string())
    }

    async fn service(&self, channel: Channel, component: Component, address: &Arc<OnceLock<String>>) -> Result<String> {
        let port = http::serve(self.interceptor(channel, component), Upstream::service(address.clone())).await?;
        Ok(format!("http://127.0.0.1:{port}"))
    }

    async fn database(&self, channel: Channel, component: Component, url: &str) -> Result<String> {
        let address = url.split(['@', '/']).nth(3).context("a database URL has an address")?;
        let port = postgres::serve(self.interceptor(channel, component), address.to_owned()).await?;
        Ok(url.replace(address, &format!("127.0.0.1:{port}")))
    }

    async fn broker(&self, channel: Channel, component: Component, nats: &Nats) -> Result<String> {
        let address = nats.url().trim_start_matches("nats://").to_owned();
        Ok(format!("nats://127.0.0.1:{}", nats::serve(self.interceptor(channel, component), address).await?))
    }

    async fn mail(&self, inbox: &Inbox) -> Result<String> {
        let address = inbox.smtp_url().trim_start_matches("smtp://").to_owned();
        let port = mail::serve(self.interceptor(Channel::NotifyToMail, Component::Notify), address).await?;
        Ok(format!("smtp://127.0.0.1:{port}"))
    }
}
