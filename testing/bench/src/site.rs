//! The processes that a measurement needs: a control plane whose etcd waits for the disk, the
//! databases, a mail server and the services. Each measurement starts new ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use orders_shop::{Database, Stack, StackOptions};
use orders_testbed::{Cluster, Inbox, Postgres, PostgresOptions, Process, free_port, wait_for};

use crate::counters::Counters;
use crate::customers::Customers;
use crate::exposition::sum;
use crate::options::Options;
use crate::sample::Sample;
use crate::writer::{Writer, login};

/// The time limit until the customer of every order is notified and every order is archived. It suffices for a backlog
/// of ten thousand orders at a tenth of the usual rate.
const SETTLE_LIMIT: Duration = Duration::from_secs(900);

/// The longest time between the last status and the last event.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The time after which the operator has looked for orders to archive: it does so once a second.
const ARCHIVED: Duration = Duration::from_millis(1200);

/// The time limit for a service to become ready or to stop, which is the same as in the chart.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// The number of orders before the first measurement. They fill connection pools and create query plans.
const WARM_UP_ORDERS: usize = 100;

/// The time limit for kube-controller-manager to find a new kind: it looks twice a minute.
const GARBAGE_COLLECTOR_LIMIT: Duration = Duration::from_secs(75);

/// The smallest number with sixteen digits.
const SIXTEEN_DIGITS: i64 = 1_000_000_000_000_000;

/// The maximum number of orders that are placed to get one with such a number. If none of fifty orders has one, the cause
/// is not chance.
const MOST_SAMPLES: u32 = 50;

/// A service that was started in addition to the stack's.
pub struct More {
    _process: Process,
    url: String,
    admin: String,
}

/// The settings in which a site differs from the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The number of namespaces, each with its own api-server. With more than one, the operator watches all namespaces.
    pub namespaces: u32,
    /// Whether finished orders are deleted as early as possible.
    pub removal: bool,
}

/// A running site. Fields are dropped in this order: clients before servers.
pub struct Site {
    /// The client that places orders over HTTP.
    pub customers: Customers,
    /// The raw client, which writes orders into a namespace that no operator watches.
    pub writer: Writer,
    /// An administrator's client.
    pub client: Client,
    /// The HTTP client for metrics.
    pub http: reqwest::Client,
    more: Vec<More>,
    removal: bool,
    /// The services.
    pub stack: Stack,
    /// The mail server.
    pub inbox: Inbox,
    /// The databases' server, if there is one.
    pub postgres: Option<Postgres>,
    /// The control plane.
    pub cluster: Cluster,
}

impl Site {
    /// Starts a site, warms it up, and reads one of its orders as a sample.
    ///
    /// # Errors
    /// If a process does not start, or an order is not paid.
    pub async fn open(directory: &Path, database: Database, options: &Options, wanted: Wanted) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let cluster = Cluster::durable(directory).await?;
        let postgres = match database {
            Database::Postgres => {
                Some(Postgres::start_with(directory, PostgresOptions { fsync: true, ..PostgresOptions::default() }).await?)
            }
            Database::Sqlite => None,
        };
        let inbox = Inbox::start(directory).await?;
        let url = |name: &str| postgres.as_ref().map(|server| server.database(name)).transpose();
        let everywhere = wanted.namespaces > 1;
        let programs = programs(options)?;
        let mut stack = StackOptions {
            billing_database: url("billing")?,
            notify_database: url("notify")?,
            archive_database: url("archive")?,
            // The operator for all namespaces is started below, since the stack's operator watches only one namespace.
            operators: usize::from(!everywhere),
            programs: Some(programs.clone()),
            ..StackOptions::new(inbox.smtp_url())
        };
        if wanted.removal {
            stack.env.push(("operator", "TTL_SECONDS_AFTER_FINISHED", "0".to_owned()));
        }
        let namespace = cluster.namespace("shop").await?;
        let stack = Stack::start_in(&cluster, &namespace, directory, stack).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(READY_LIMIT).build()?;
        let client = cluster.client().await?;

        let (mut more, mut urls) = (Vec::new(), vec![stack.api_server.url.clone()]);
        if everywhere {
            more.push(start("operator", "operator", None, &cluster, &stack, &programs).await?);
            for number in 1..wanted.namespaces {
                let namespace = cluster.namespace("shop").await?;
                let name = format!("api-server-{number}");
                let server = start(&name, "api-server", Some(&namespace), &cluster, &stack, &programs).await?;
                urls.push(server.url.clone());
                more.push(server);
            }
        }
        watched_by_the_garbage_collector(&client).await;
        let accounts = options.clients.iter().copied().max().unwrap_or(1).max(32);
        let customers = Customers::new(urls, options.keyed)?;
        customers.open_accounts(accounts, login).await?;
        let raw = cluster.namespace("raw").await?;
        let before = told(&http, &operator_metrics(&stack, &more)?).await?;
        let warm = customers.clone();
        crate::load::all(8, WARM_UP_ORDERS, move |worker| {
            let customers = warm.clone();
            async move { customers.place(worker).await.map(drop) }
        })
        .await?;
        // Nine of ten numbers have sixteen digits. All numbers of the raw client do.
        let (mut id, mut placed) = (0, 0);
        while id < SIXTEEN_DIGITS {
            ensure!(placed < MOST_SAMPLES, "no order got a number of sixteen digits");
            (id, placed) = (customers.order(0).await?, placed + 1);
        }
        settle(&http, &operator_metrics(&stack, &more)?, before + WARM_UP_ORDERS as f64 + f64::from(placed)).await?;
        // The resource still exists even if orders are deleted: the archive has only just stored the order.
        let sample = Sample::take(&client, &namespace, &format!("order-{id}")).await.context("the sample order")?;
        ensure!(sample.events() > 0, "the sample order has no events");
        let writer = Writer::new(&cluster, options.pools, Arc::new(sample), &raw).await?;
        let site = Site { customers, writer, client, http, more, removal: wanted.removal, stack, inbox, postgres, cluster };
        site.removed().await?;
        Ok(site)
    }

    /// The counters of this site's servers.
    ///
    /// # Errors
    /// If the control plane is not private to this site.
    pub fn counters(&self) -> Result<Counters<'_>> {
        let etcd = self.cluster.etcd_url()?;
        Ok(Counters { client: &self.client, http: &self.http, etcd, postgres: self.postgres.as_ref() })
    }

    /// The number of notified customers, as the operator's process counts them.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn told(&self) -> Result<f64> {
        told(&self.http, &operator_metrics(&self.stack, &self.more)?).await
    }

    /// Waits until the operator's process has counted this number of notified customers.
    ///
    /// # Errors
    /// If that takes longer than a quarter of an hour.
    pub async fn all_told(&self, expected: f64) -> Result<()> {
        all_told(&self.http, &operator_metrics(&self.stack, &self.more)?, expected).await
    }

    /// Waits until this number of customers are notified, all finished orders are archived, and
    /// the last event is written.
    ///
    /// # Errors
    /// If that takes longer than a quarter of an hour.
    pub async fn settle(&self, told: f64) -> Result<()> {
        settle(&self.http, &operator_metrics(&self.stack, &self.more)?, told).await?;
        self.removed().await?;
        // Nothing reads the mail, and it would count as memory of the mail server.
        self.inbox.clear().await
    }

    /// Waits until no Order resource exists, if orders are deleted.
    async fn removed(&self) -> Result<()> {
        if !self.removal {
            return Ok(());
        }
        wait_for("every order to be removed", SETTLE_LIMIT, || async { (self.live().await.ok()? == 0.0).then_some(()) }).await
    }

    /// Waits until all finished orders are archived.
    ///
    /// # Errors
    /// If that takes longer than a quarter of an hour.
    pub async fn archived(&self, live: usize) -> Result<()> {
        let url = operator_metrics(&self.stack, &self.more)?;
        wait_for("the operator to have archived what is finished", SETTLE_LIMIT, || async {
            let text = metrics(&self.http, &url).await.ok()?;
            let seen = sum(&text, "orders_live", &[]) >= live as f64;
            let archived = text.contains("orders_archive_backlog") && sum(&text, "orders_archive_backlog", &[]) == 0.0;
            (seen && archived).then_some(())
        })
        .await
    }

    /// The number of Order resources, as the operator last counted them.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn live(&self) -> Result<f64> {
        let text = metrics(&self.http, &operator_metrics(&self.stack, &self.more)?).await?;
        Ok(sum(&text, "orders_live", &[]))
    }

    /// Stops the operator as Kubernetes does, so that it releases its Lease.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop_operator(&self) -> Result<()> {
        for operator in &self.stack.operators {
            operator.process.terminate(READY_LIMIT).await?;
        }
        Ok(())
    }

    /// Restarts the operator.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_operator(&mut self) -> Result<()> {
        for operator in &mut self.stack.operators {
            operator.start_again().await?;
        }
        Ok(())
    }
}

/// The directory with the services' programs.
pub fn programs(options: &Options) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this program is in no directory")?;
    let programs = options.programs.as_deref().unwrap_or(beside);
    let programs = programs.canonicalize().with_context(|| format!("{}", programs.display()))?;
    for service in ["api-server", "operator", "billing", "notify", "archive"] {
        let program = programs.join(format!("orders-{service}"));
        ensure!(program.is_file(), "{} is not built: run make bench, or cargo build --release --workspace", program.display());
    }
    Ok(programs)
}

/// Starts an additional service with the stack's tokens.
async fn start(
    name: &str,
    service: &str,
    namespace: Option<&str>,
    cluster: &Cluster,
    stack: &Stack,
    programs: &Path,
) -> Result<More> {
    let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let token = |of: &str| stack.directory.join(format!("{service}-{of}.token"));
    let mut builder = Process::builder(name, programs.join(format!("orders-{service}")), &stack.directory)
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("LISTEN_ADDR", &listen)
        .env("ADMIN_ADDR", &admin)
        .env("BILLING_URL", &stack.billing.url)
        .env("NOTIFY_URL", &stack.notify.url)
        .env("ARCHIVE_URL", &stack.archive.url)
        .env("BILLING_TOKEN_FILE", token("billing"))
        .env("NOTIFY_TOKEN_FILE", token("notify"))
        .env("ARCHIVE_TOKEN_FILE", token("archive"))
        .env("INTERACTION", "http")
        .env("LEASE_NAMESPACE", &stack.namespace)
        .env("POD_NAME", name);
    if let Some(namespace) = namespace {
        builder = builder.env("NAMESPACE", namespace);
    }
    let process = builder.spawn()?;
    process.wait_http(&format!("http://{admin}/readyz"), READY_LIMIT).await?;
    Ok(More { _process: process, url: format!("http://{listen}"), admin })
}

/// Waits until kube-controller-manager watches orders, as it does in every cluster. It looks for new kinds
/// twice a minute. Without its watch, orders cost the API server less than with it.
async fn watched_by_the_garbage_collector(client: &Client) {
    let labels = ["group=\"arch.homework\"", "resource=\"orders\"", "scope=\"cluster\"", "verb=\"WATCH\""];
    let watched = wait_for("kube-controller-manager to watch orders", GARBAGE_COLLECTOR_LIMIT, || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = http::Request::get("/metrics").body(Vec::new()).ok()?;
        let text = client.request_text(request).await.ok()?;
        (sum(&text, "apiserver_longrunning_requests", &labels) >= 1.0).then_some(())
    });
    if let Err(error) = watched.await {
        crate::progress::say(&format!("{error}; going on, the first figures may be too good"));
    }
}

/// The URL of the operator's metrics. The operator is the stack's, or else the first additional one.
fn operator_metrics(stack: &Stack, more: &[More]) -> Result<String> {
    match (stack.operators.first(), more.first()) {
        (Some(operator), _) => Ok(operator.metrics_url()),
        (None, Some(operator)) => Ok(format!("http://{}/metrics", operator.admin)),
        (None, None) => anyhow::bail!("there is no operator"),
    }
}

async fn metrics(http: &reqwest::Client, url: &str) -> Result<String> {
    Ok(http.get(url).send().await?.error_for_status()?.text().await?)
}

async fn told(http: &reqwest::Client, url: &str) -> Result<f64> {
    Ok(sum(&metrics(http, url).await?, "orders_steps_total", &["reason=\"Sent\""]))
}

async fn all_told(http: &reqwest::Client, url: &str, expected: f64) -> Result<()> {
    wait_for("every customer to be told", SETTLE_LIMIT, || async { (told(http, url).await.ok()? >= expected).then_some(()) })
        .await
}

async fn settle(http: &reqwest::Client, url: &str, expected: f64) -> Result<()> {
    all_told(http, url, expected).await?;
    tokio::time::sleep(LAST_EVENTS.max(ARCHIVED)).await;
    wait_for("every order to be archived", SETTLE_LIMIT, || async {
        (sum(&metrics(http, url).await.ok()?, "orders_archive_backlog", &[]) == 0.0).then_some(())
    })
    .await
}
