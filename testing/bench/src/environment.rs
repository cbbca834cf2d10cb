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
use crate::order_template::OrderTemplate;
use crate::writer::{Writer, login};

/// The time limit until the customer of every order is notified and every order is archived. It suffices for a backlog
/// of ten thousand orders at a tenth of the usual rate.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(900);

/// The longest time between the last status and the last event.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The time after which the operator has looked for orders to archive: it does so once a second.
const ARCHIVE_INTERVAL: Duration = Duration::from_millis(1200);

/// The time limit for a service to become ready or to stop, which is the same as in the chart.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of orders before the first measurement. They fill connection pools and create query plans.
const WARM_UP_ORDERS: usize = 100;

/// The time limit for kube-controller-manager to find a new kind: it looks twice a minute.
const GARBAGE_COLLECTOR_TIMEOUT: Duration = Duration::from_secs(75);

/// The smallest number with sixteen digits.
const MIN_TEMPLATE_ID: i64 = 1_000_000_000_000_000;

/// The maximum number of orders that are placed to get one with such a number. If none of fifty orders has one, the cause
/// is not chance.
const MAX_TEMPLATE_ORDERS: u32 = 50;

/// A service that was started in addition to the stack's.
pub struct AdditionalService {
    _process: Process,
    url: String,
    admin: String,
}

/// The settings in which an environment differs from the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvironmentOptions {
    /// The number of namespaces, each with its own api-server. With more than one, the operator watches all namespaces.
    pub namespaces: u32,
    /// Whether finished orders are deleted as early as possible.
    pub removal: bool,
}

/// A running environment. Fields are dropped in this order: clients before servers.
pub struct Environment {
    /// The client that places orders over HTTP.
    pub customers: Customers,
    /// The raw client, which writes orders into a namespace that no operator watches.
    pub writer: Writer,
    /// An administrator's client.
    pub client: Client,
    /// The HTTP client for metrics.
    pub http: reqwest::Client,
    additional_services: Vec<AdditionalService>,
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

impl Environment {
    /// Starts an environment, warms it up, and reads one of its orders as a template.
    ///
    /// # Errors
    /// If a process does not start, or an order is not paid.
    pub async fn start(directory: &Path, database: Database, options: &Options, settings: EnvironmentOptions) -> Result<Self> {
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
        let all_namespaces = settings.namespaces > 1;
        let programs = programs(options)?;
        let mut stack = StackOptions {
            billing_database: url("billing")?,
            notify_database: url("notify")?,
            archive_database: url("archive")?,
            // The operator for all namespaces is started below, since the stack's operator watches only one namespace.
            operators: usize::from(!all_namespaces),
            programs: Some(programs.clone()),
            ..StackOptions::new(inbox.smtp_url())
        };
        if settings.removal {
            stack.env.push(("operator", "TTL_SECONDS_AFTER_FINISHED", "0".to_owned()));
        }
        let namespace = cluster.namespace("shop").await?;
        let stack = Stack::start_in(&cluster, &namespace, directory, stack).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(READY_TIMEOUT).build()?;
        let client = cluster.client().await?;

        let (mut additional_services, mut urls) = (Vec::new(), vec![stack.api_server.url.clone()]);
        if all_namespaces {
            additional_services.push(start("operator", "operator", None, &cluster, &stack, &programs).await?);
            for number in 1..settings.namespaces {
                let namespace = cluster.namespace("shop").await?;
                let name = format!("api-server-{number}");
                let server = start(&name, "api-server", Some(&namespace), &cluster, &stack, &programs).await?;
                urls.push(server.url.clone());
                additional_services.push(server);
            }
        }
        wait_for_garbage_collector(&client).await;
        let accounts = options.clients.iter().copied().max().unwrap_or(1).max(32);
        let customers = Customers::new(urls, options.keyed)?;
        customers.open_accounts(accounts, login).await?;
        let raw = cluster.namespace("raw").await?;
        let before = notified_count(&http, &operator_metrics(&stack, &additional_services)?).await?;
        let warm = customers.clone();
        crate::load::run_all(8, WARM_UP_ORDERS, move |worker| {
            let customers = warm.clone();
            async move { customers.measure_order(worker).await.map(drop) }
        })
        .await?;
        // Nine of ten numbers have sixteen digits. All numbers of the raw client do.
        let (mut id, mut placed) = (0, 0);
        while id < MIN_TEMPLATE_ID {
            ensure!(placed < MAX_TEMPLATE_ORDERS, "no order got a number of sixteen digits");
            (id, placed) = (customers.place_order(0).await?, placed + 1);
        }
        wait_settled(&http, &operator_metrics(&stack, &additional_services)?, before + WARM_UP_ORDERS as f64 + f64::from(placed))
            .await?;
        // The resource still exists even if orders are deleted: the archive has only just stored the order.
        let template = OrderTemplate::read(&client, &namespace, &format!("order-{id}")).await.context("the template order")?;
        ensure!(template.event_count() > 0, "the template order has no events");
        let writer = Writer::new(&cluster, options.pools, Arc::new(template), &raw).await?;
        let environment = Environment {
            customers,
            writer,
            client,
            http,
            additional_services,
            removal: settings.removal,
            stack,
            inbox,
            postgres,
            cluster,
        };
        environment.wait_removed().await?;
        Ok(environment)
    }

    /// The counters of this environment's servers.
    ///
    /// # Errors
    /// If the control plane is not private to this environment.
    pub fn counters(&self) -> Result<Counters<'_>> {
        let etcd = self.cluster.etcd_url()?;
        Ok(Counters { client: &self.client, http: &self.http, etcd, postgres: self.postgres.as_ref() })
    }

    /// The number of notified customers, as the operator's process counts them.
    ///
    /// # Errors
    /// If it does not respond.
    pub async fn notified_count(&self) -> Result<f64> {
        notified_count(&self.http, &operator_metrics(&self.stack, &self.additional_services)?).await
    }

    /// Waits until the operator's process has counted this number of notified customers.
    ///
    /// # Errors
    /// If that takes longer than a quarter of an hour.
    pub async fn wait_notified(&self, expected: f64) -> Result<()> {
        wait_notified(&self.http, &operator_metrics(&self.stack, &self.additional_services)?, expected).await
    }

    /// Waits until this number of customers are notified, all finished orders are archived, and
    /// the last event is written.
    ///
    /// # Errors
    /// If that takes longer than a quarter of an hour.
    pub async fn wait_settled(&self, notified: f64) -> Result<()> {
        wait_settled(&self.http, &operator_metrics(&self.stack, &self.additional_services)?, notified).await?;
        self.wait_removed().await?;
        // Nothing reads the mail, and it would count as memory of the mail server.
        self.inbox.clear().await
    }

    /// Waits until no Order resource exists, if orders are deleted.
    async fn wait_removed(&self) -> Result<()> {
        if !self.removal {
            return Ok(());
        }
        wait_for("every order to be removed", SETTLE_TIMEOUT, || async { (self.live_orders().await.ok()? == 0.0).then_some(()) })
            .await
    }

    /// Waits until all finished orders are archived.
    ///
    /// # Errors
    /// If that takes longer than a quarter of an hour.
    pub async fn wait_archived(&self, live: usize) -> Result<()> {
        let url = operator_metrics(&self.stack, &self.additional_services)?;
        wait_for("all finished orders to be archived", SETTLE_TIMEOUT, || async {
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
    /// If it does not respond.
    pub async fn live_orders(&self) -> Result<f64> {
        let text = metrics(&self.http, &operator_metrics(&self.stack, &self.additional_services)?).await?;
        Ok(sum(&text, "orders_live", &[]))
    }

    /// Stops the operator as Kubernetes does, so that it releases its Lease.
    ///
    /// # Errors
    /// If it does not exit.
    pub async fn stop_operator(&self) -> Result<()> {
        for operator in &self.stack.operators {
            operator.process.terminate(READY_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Restarts the operator.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_operator(&mut self) -> Result<()> {
        for operator in &mut self.stack.operators {
            operator.restart().await?;
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
) -> Result<AdditionalService> {
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
    process.wait_http(&format!("http://{admin}/readyz"), READY_TIMEOUT).await?;
    Ok(AdditionalService { _process: process, url: format!("http://{listen}"), admin })
}

/// Waits until kube-controller-manager watches orders, as it does in every cluster. It looks for new kinds
/// twice a minute. Without its watch, orders cost the API server less than with it.
async fn wait_for_garbage_collector(client: &Client) {
    let labels = ["group=\"arch.homework\"", "resource=\"orders\"", "scope=\"cluster\"", "verb=\"WATCH\""];
    let watched = wait_for("kube-controller-manager to watch orders", GARBAGE_COLLECTOR_TIMEOUT, || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = http::Request::get("/metrics").body(Vec::new()).ok()?;
        let text = client.request_text(request).await.ok()?;
        (sum(&text, "apiserver_longrunning_requests", &labels) >= 1.0).then_some(())
    });
    if let Err(error) = watched.await {
        crate::progress::print_progress(&format!("{error}; continuing, the first figures may be too low"));
    }
}

/// The URL of the operator's metrics. The operator is the stack's, or else the first additional one.
fn operator_metrics(stack: &Stack, additional_services: &[AdditionalService]) -> Result<String> {
    match (stack.operators.first(), additional_services.first()) {
        (Some(operator), _) => Ok(operator.metrics_url()),
        (None, Some(operator)) => Ok(format!("http://{}/metrics", operator.admin)),
        (None, None) => anyhow::bail!("there is no operator"),
    }
}

async fn metrics(http: &reqwest::Client, url: &str) -> Result<String> {
    Ok(http.get(url).send().await?.error_for_status()?.text().await?)
}

async fn notified_count(http: &reqwest::Client, url: &str) -> Result<f64> {
    Ok(sum(&metrics(http, url).await?, "orders_steps_total", &["reason=\"Sent\""]))
}

async fn wait_notified(http: &reqwest::Client, url: &str, expected: f64) -> Result<()> {
    wait_for("every customer to be notified", SETTLE_TIMEOUT, || async {
        (notified_count(http, url).await.ok()? >= expected).then_some(())
    })
    .await
}

async fn wait_settled(http: &reqwest::Client, url: &str, expected: f64) -> Result<()> {
    wait_notified(http, url, expected).await?;
    tokio::time::sleep(LAST_EVENTS.max(ARCHIVE_INTERVAL)).await;
    wait_for("every order to be archived", SETTLE_TIMEOUT, || async {
        (sum(&metrics(http, url).await.ok()?, "orders_archive_backlog", &[]) == 0.0).then_some(())
    })
    .await
}
