//! The system under test: real services, real servers, and a proxy on each way between them.

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
use orders_testbed::{Cluster, Inbox, Nats, PATIENCE, Postgres, wait_for};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    actors::Actors,
    effect::{Channel, Part},
    proxy::{
        Door,
        http::{self, Upstream},
        mail, nats, postgres,
    },
    switchboard::Switchboard,
    workload::Workload,
};

/// Operators in a shop, of which one works at a time.
const OPERATORS: usize = 2;

/// How long a database may take to recover before the audit asks in vain.
const AUDIT_LIMIT: Duration = PATIENCE;

/// The exit code of `orders-audit` when something that it asks does not answer.
const COULD_NOT_BE_MADE: i32 = 2;

/// A kind of shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How the services talk.
    pub interaction: Interaction,
    /// Which databases they use.
    pub database: Database,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.interaction.as_str(), self.database.as_str())
    }
}

/// How long orders stay after they are finished, where they are to be removed: longer than a look at them takes.
const TTL_SECONDS: &str = "2";

/// What differs between shops.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Of which kind.
    pub kind: Kind,
    /// What its customers do.
    pub workload: Workload,
    /// A seeded bug of the services themselves.
    pub seeded_bug: Option<&'static str>,
    /// Where SQLite files go, if not beside the logs.
    pub data: Option<PathBuf>,
}

/// A shop that is open.
pub struct Shop {
    /// Where effects are reported and faults are armed.
    pub board: Arc<Switchboard>,
    /// The processes.
    pub actors: Arc<OnceLock<Actors>>,
    /// Where mail arrives.
    pub inbox: Inbox,
    /// The broker, if this style has one.
    pub nats: Option<tokio::sync::Mutex<Nats>>,
    /// An administrator of the cluster.
    pub client: Client,
    /// The customers' client.
    pub http: reqwest::Client,
    /// Base URL of the public API.
    pub url: String,
    /// Where the orders are.
    pub namespace: String,
    // First of all, so that nobody is started again who is being ended.
    _keeper: AbortOnDropHandle<()>,
    broker_admin: Option<(String, String)>,
    audit: Audit,
    // Last, so that it is removed after the processes that write into it.
    directory: TempDir,
}

impl Shop {
    /// Opens a shop in a namespace of its own on the shared control plane.
    ///
    /// # Errors
    /// If a part does not become ready.
    pub async fn open(setup: &Setup) -> Result<Self> {
        let cluster = Cluster::control_plane().await?;
        let client = cluster.client().await?;
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let server = match setup.kind.database {
            Database::Postgres => Some(Postgres::start(directory.path()).await?),
            Database::Sqlite => None,
        };
        let proxies = Proxies { directory: directory.path(), client: &client, board: Arc::default(), actors: Arc::default() };
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
                ("operator-0", "NATS_URL", proxies.broker(Channel::OperatorToBroker, Part::Operator(0), nats).await?),
                ("operator-1", "NATS_URL", proxies.broker(Channel::OperatorToBroker, Part::Operator(1), nats).await?),
                ("notify", "NATS_URL", proxies.broker(Channel::NotifyToBroker, Part::Notify, nats).await?),
            ]);
        }
        if let (Some(nats), Interaction::Broker) = (&nats, setup.kind.interaction) {
            options.env.push(("billing", "NATS_URL", proxies.broker(Channel::BillingToBroker, Part::Billing, nats).await?));
        }
        if let Some(server) = &server {
            let (billing, notify) = (server.database("billing")?, server.database("notify")?);
            let archive = server.database("archive")?;
            options.billing_database = Some(proxies.database(Channel::BillingToDatabase, Part::Billing, &billing).await?);
            options.notify_database = Some(proxies.database(Channel::NotifyToDatabase, Part::Notify, &notify).await?);
            options.archive_database = Some(proxies.database(Channel::ArchiveToDatabase, Part::Archive, &archive).await?);
        } else if let Some(data) = &setup.data {
            options.billing_database = Some(format!("sqlite://{}/billing.db", data.display()));
            options.notify_database = Some(format!("sqlite://{}/notify.db", data.display()));
        }
        for (number, name) in ["operator-0", "operator-1"].into_iter().enumerate().take(OPERATORS) {
            let by = Part::Operator(number);
            options.env.extend([
                (name, "KUBECONFIG", proxies.kube(Channel::OperatorToKube, by).await?),
                (name, "BILLING_URL", proxies.service(Channel::OperatorToBilling, by, &billing).await?),
                (name, "NOTIFY_URL", proxies.service(Channel::OperatorToNotify, by, &notify).await?),
                (name, "ARCHIVE_URL", proxies.service(Channel::OperatorToArchive, by, &archive).await?),
            ]);
        }
        options.env.extend([
            ("api-server", "KUBECONFIG", proxies.kube(Channel::ApiServerToKube, Part::ApiServer).await?),
            ("api-server", "BILLING_URL", proxies.service(Channel::ApiServerToBilling, Part::ApiServer, &billing).await?),
            ("api-server", "ARCHIVE_URL", proxies.service(Channel::ApiServerToArchive, Part::ApiServer, &archive).await?),
        ]);
        if setup.workload == Workload::Removal {
            options.env.push(("operator", "TTL_SECONDS_AFTER_FINISHED", TTL_SECONDS.to_owned()));
        }
        if let Some(bug) = setup.seeded_bug {
            options.env.extend(["operator", "billing", "notify"].map(|service| (service, "SEEDED_BUG", bug.to_owned())));
        }
        let namespace = cluster.namespace("faults").await?;
        // The proxies to the services have to know where they are before the first request.
        let stack = Stack::start_in(&cluster, &namespace, directory.path(), options).await?;
        let authority = |url: &str| url.trim_start_matches("http://").to_owned();
        billing.get_or_init(|| authority(&stack.billing.url));
        notify.get_or_init(|| authority(&stack.notify.url));
        archive.get_or_init(|| authority(&stack.archive.url));
        let (url, audit) = (stack.api_server.url.clone(), stack.audit(&cluster));
        ensure!(proxies.actors.set(Actors::new(stack, server, client.clone())).is_ok(), "the actors are set once");
        let actors = proxies.actors.clone();
        let keeper = tokio::spawn(async move {
            if let Some(actors) = actors.get() {
                actors.keep_running().await;
            }
        });
        let shop = Shop {
            _keeper: AbortOnDropHandle::new(keeper),
            board: proxies.board.clone(),
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
        Ok(shop)
    }

    /// The processes.
    ///
    /// # Panics
    /// Never: an open shop has them.
    pub fn actors(&self) -> &Actors {
        self.actors.get().expect("an open shop has actors")
    }

    /// The broker's streams, as its administrator; `None` if this style has no broker.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn jetstream(&self) -> Result<Option<jetstream::Context>> {
        let Some((url, password)) = &self.broker_admin else { return Ok(None) };
        let options = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), password.clone());
        Ok(Some(jetstream::new(options.connect(url).await?)))
    }

    /// Waits until the broker has delivered everything, and everything is acknowledged.
    ///
    /// # Errors
    /// If that takes longer than `limit`.
    pub async fn delivered(&self, limit: Duration) -> Result<()> {
        let Some(jetstream) = self.jetstream().await? else { return Ok(()) };
        wait_for("all messages to be acknowledged", limit, || async {
            for stream in Stream::READ {
                let Ok(stream) = jetstream.get_stream(stream.name()).await else { continue };
                let consumers: Vec<_> = stream.consumers().try_collect().await.ok()?;
                // A durable of a style that is not running has nobody to acknowledge, and nothing to.
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

    /// Runs `orders-audit` over everything that ever happened in this shop, as soon as all that it asks
    /// answers again.
    ///
    /// # Errors
    /// With its report, if something does not hold or it could not be found out.
    pub async fn audit(&self) -> Result<()> {
        let audit = || self.audit.run(&[], AUDIT_LIMIT);
        let made = wait_for("an audit that can be made", AUDIT_LIMIT, || async {
            audit().await.ok().filter(|audited| audited.exit_code != Some(COULD_NOT_BE_MADE))
        })
        .await;
        match made {
            Ok(audited) => ensure!(audited.exit_code == Some(0), "orders-audit: {}", audited.output),
            Err(error) => bail!("{error}: {}", audit().await?.output),
        }
        Ok(())
    }

    /// Keeps the shop's files, for a look at them; where they are.
    pub fn keep(self) -> PathBuf {
        self.directory.keep()
    }
}

/// Makes the proxies of a shop.
struct Proxies<'a> {
    directory: &'a Path,
    client: &'a Client,
    board: Arc<Switchboard>,
    actors: Arc<OnceLock<Actors>>,
}

impl Proxies<'_> {
    fn door(&self, channel: Channel, by: Part) -> Door {
        Door { channel, by, board: self.board.clone(), actors: self.actors.clone() }
    }

    /// A kubeconfig that leads to the Kubernetes API by way of a proxy.
    async fn kube(&self, channel: Channel, by: Part) -> Result<String> {
        let port = http::serve(self.door(channel, by), Upstream::Kube(self.client.clone())).await?;
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        let path = self.directory.join(format!("{by:?}.kubeconfig"));
        std::fs::write(&path, config.to_string())?;
        Ok(path.display().to_string())
    }

    async fn service(&self, channel: Channel, by: Part, address: &Arc<OnceLock<String>>) -> Result<String> {
        let port = http::serve(self.door(channel, by), Upstream::service(address.clone())).await?;
        Ok(format!("http://127.0.0.1:{port}"))
    }

    async fn database(&self, channel: Channel, by: Part, url: &str) -> Result<String> {
        let address = url.split(['@', '/']).nth(3).context("a database URL has an address")?;
        let port = postgres::serve(self.door(channel, by), address.to_owned()).await?;
        Ok(url.replace(address, &format!("127.0.0.1:{port}")))
    }

    async fn broker(&self, channel: Channel, by: Part, nats: &Nats) -> Result<String> {
        let address = nats.url().trim_start_matches("nats://").to_owned();
        Ok(format!("nats://127.0.0.1:{}", nats::serve(self.door(channel, by), address).await?))
    }

    async fn mail(&self, inbox: &Inbox) -> Result<String> {
        let address = inbox.smtp_url().trim_start_matches("smtp://").to_owned();
        let port = mail::serve(self.door(Channel::NotifyToMail, Part::Notify), address).await?;
        Ok(format!("smtp://127.0.0.1:{port}"))
    }
}
