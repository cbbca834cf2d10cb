//! The four services as processes on this machine, against a cluster: for
//! integration tests and `testbed dev`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, CustomResourceExt};
use orders_crds::Order;

use crate::cluster::{Cluster, service_account_token};
use crate::process::{Process, binary};
use crate::wait::{free_port, wait_for};

/// How long a service may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Where the databases and the mail server are, and how many operators run.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// DATABASE_URL of billing; a SQLite file of the stack's own if not given.
    pub billing_database: Option<String>,
    /// DATABASE_URL of notify; a SQLite file of the stack's own if not given.
    pub notify_database: Option<String>,
    /// SMTP_URL.
    pub smtp_url: String,
    /// Operators, of which one works at a time.
    pub operators: usize,
    /// Port of the public API; a free one if not given.
    pub port: Option<u16>,
    /// More environment, which goes before the stack's own: service (`billing`, `notify`,
    /// `api-server`, `operator` for all of them, `operator-0` …), variable, value.
    pub env: Vec<(&'static str, &'static str, String)>,
    /// Where the services' programs are; beside the running one if not given.
    pub programs: Option<PathBuf>,
}

impl StackOptions {
    /// SQLite, this mail server, one operator.
    pub fn new(smtp_url: String) -> Self {
        StackOptions {
            billing_database: None,
            notify_database: None,
            smtp_url,
            operators: 1,
            port: None,
            env: Vec::new(),
            programs: None,
        }
    }

    /// The additional environment of a service.
    fn env_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
        let kind = service.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit());
        self.env
            .iter()
            .filter(move |(of, ..)| *of == service || *of == kind)
            .map(|(_, variable, value)| ((*variable).to_owned(), value.clone()))
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        match &self.programs {
            Some(directory) => Ok(directory.join(name)),
            None => binary(name),
        }
    }
}

/// A service: its process and where it answers.
#[derive(Debug)]
pub struct Service {
    /// The running process.
    pub process: Process,
    /// Base URL of its HTTP API; that of the admin port for the operator.
    pub url: String,
    admin: String,
    start: Start,
}

/// How a service was started, so that it can be started again just so.
#[derive(Clone, Debug)]
struct Start {
    name: String,
    program: PathBuf,
    directory: PathBuf,
    env: Vec<(String, String)>,
}

impl Start {
    fn spawn(&self) -> Result<Process> {
        Process::builder(&self.name, &self.program, &self.directory).envs(self.env.iter().map(|(k, v)| (k, v))).spawn()
    }
}

impl Service {
    /// Kills the process, as a power cut would (SIGKILL).
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again as it was, on the same ports, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; the error shows the end of its log.
    pub async fn start_again(&mut self) -> Result<()> {
        self.start_again_unready()?;
        self.ready().await
    }

    /// Starts it again without waiting.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_again_unready(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.start.spawn()?;
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// If it does not within 30 s.
    pub async fn ready(&self) -> Result<()> {
        self.process.wait_http(&format!("http://{}/readyz", self.admin), READY_LIMIT).await
    }
}

/// The four services in a namespace of their own.
#[derive(Debug)]
pub struct Stack {
    /// Where the orders are.
    pub namespace: String,
    /// The public API.
    pub api_server: Service,
    /// The operators.
    pub operators: Vec<Service>,
    /// Billing.
    pub billing: Service,
    /// Notify.
    pub notify: Service,
    /// Logs, databases and tokens.
    pub directory: PathBuf,
}

impl Stack {
    /// Starts the services in a new namespace of the cluster and waits until
    /// they are ready. `directory` gets their logs, databases and tokens.
    ///
    /// # Errors
    /// If one of them does not become ready; the error shows the end of its log.
    pub async fn start(cluster: &Cluster, directory: &Path, options: StackOptions) -> Result<Self> {
        let namespace = cluster.namespace("shop").await?;
        Self::start_in(cluster, &namespace, directory, options).await
    }

    /// The same, in a namespace that is there already.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start_in(cluster: &Cluster, namespace: &str, directory: &Path, options: StackOptions) -> Result<Self> {
        let client = cluster.client().await?;
        install_crd(&client).await?;
        let tokens = Tokens::make(&client, namespace, directory).await?;
        let sqlite = |name: &str| format!("sqlite://{}", directory.join(name).display());
        let kubeconfig = ("KUBECONFIG".to_owned(), cluster.kubeconfig.display().to_string());
        let start = |name: &str, program: &str, port: Option<u16>, env: Vec<(&str, String)>| -> Result<Service> {
            let (listen, admin) = (format!("127.0.0.1:{}", port.unwrap_or_else(free_port)), format!("127.0.0.1:{}", free_port()));
            let mut all =
                vec![kubeconfig.clone(), ("LISTEN_ADDR".to_owned(), listen.clone()), ("ADMIN_ADDR".to_owned(), admin.clone())];
            all.extend(env.into_iter().map(|(key, value)| (key.to_owned(), value)));
            all.extend(options.env_of(name));
            let program = options.program(program)?;
            let start = Start { name: name.to_owned(), program, directory: directory.to_owned(), env: all };
            Ok(Service { process: start.spawn()?, url: format!("http://{listen}"), admin, start })
        };

        let billing = start(
            "billing",
            "orders-billing",
            None,
            vec![
                ("DATABASE_URL", options.billing_database.clone().unwrap_or_else(|| sqlite("billing.db"))),
                ("OPERATOR_ACCOUNT", tokens.operator_account.clone()),
                ("API_SERVER_ACCOUNT", tokens.api_server_account.clone()),
                ("AUDIT_ACCOUNT", tokens.audit_account.clone()),
            ],
        )?;
        let notify = start(
            "notify",
            "orders-notify",
            None,
            vec![
                ("DATABASE_URL", options.notify_database.clone().unwrap_or_else(|| sqlite("notify.db"))),
                ("OPERATOR_ACCOUNT", tokens.operator_account.clone()),
                ("SMTP_URL", options.smtp_url.clone()),
                ("AUDIT_ACCOUNT", tokens.audit_account.clone()),
            ],
        )?;
        let services =
            [("NAMESPACE", namespace.to_owned()), ("BILLING_URL", billing.url.clone()), ("NOTIFY_URL", notify.url.clone())];
        let mut operators = Vec::new();
        for number in 0..options.operators {
            let name = format!("operator-{number}");
            let mut env = services.to_vec();
            env.extend([
                ("BILLING_TOKEN_FILE", tokens.path("operator-billing")),
                ("NOTIFY_TOKEN_FILE", tokens.path("operator-notify")),
                ("LEASE_NAMESPACE", namespace.to_owned()),
                ("LEASE_SECONDS", "4".to_owned()),
                ("POD_NAME", name.clone()),
            ]);
            operators.push(start(&name, "orders-operator", None, env)?);
        }
        let mut env = services.to_vec();
        env.push(("BILLING_TOKEN_FILE", tokens.path("api-server-billing")));
        let api_server = start("api-server", "orders-api-server", options.port, env)?;

        let stack =
            Stack { namespace: namespace.to_owned(), api_server, operators, billing, notify, directory: directory.to_owned() };
        for service in [&stack.billing, &stack.notify, &stack.api_server].into_iter().chain(&stack.operators) {
            service.ready().await?;
        }
        Ok(stack)
    }
}

/// Tokens of the two callers, kept in files as the kubelet would.
struct Tokens {
    directory: PathBuf,
    operator_account: String,
    api_server_account: String,
    audit_account: String,
}

impl Tokens {
    async fn make(client: &Client, namespace: &str, directory: &Path) -> Result<Self> {
        let tokens = |account: &'static str, service: &'static str| {
            let file = directory.join(format!("{account}-{service}.token"));
            let audience = format!("orders-{service}");
            async move { service_account_token(client, namespace, &format!("orders-{account}"), &audience, &file).await }
        };
        tokens("operator", "notify").await?;
        tokens("audit", "notify").await?;
        Ok(Tokens {
            operator_account: tokens("operator", "billing").await?,
            api_server_account: tokens("api-server", "billing").await?,
            audit_account: tokens("audit", "billing").await?,
            directory: directory.to_owned(),
        })
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(format!("{name}.token")).display().to_string()
    }
}

/// Installs the CRD as this checkout generates it, and waits until it is served.
///
/// # Errors
/// If the API server refuses it, or does not serve it in time.
pub async fn install_crd(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = Order::crd();
    let name = crd.metadata.name.clone().unwrap_or_default();
    crds.patch(&name, &PatchParams::apply("orders-testbed").force(), &Patch::Apply(&crd)).await.context("installing the CRD")?;
    wait_for("the CRD to be served", READY_LIMIT, || {
        let orders: Api<Order> = Api::namespaced(client.clone(), "default");
        async move { orders.list(&kube::api::ListParams::default().limit(1)).await.ok() }
    })
    .await?;
    Ok(())
}
