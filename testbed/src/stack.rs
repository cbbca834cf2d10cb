//! The services as processes on this machine, against a cluster: for
//! integration tests and `testbed dev`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use orders_crds::{Customer, Order};
use tokio::process::Command;

use crate::cluster::{Cluster, service_account_token};
use crate::nats::BrokerAccess;
use crate::process::{Process, binary};
use crate::wait::{PATIENCE, free_port, wait_for};

/// How long a service may take to become ready.
const READY_LIMIT: Duration = PATIENCE;

/// How the services talk, as the chart's value of this name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interaction {
    /// The operator calls billing and notify.
    #[default]
    Http,
    /// The operator calls billing; notify is told through the broker.
    NotifyBroker,
    /// Everything between the operator, billing and notify goes through the broker.
    Broker,
}

impl Interaction {
    /// The value as the chart and the services write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::NotifyBroker => "notify-broker",
            Self::Broker => "broker",
        }
    }

    /// The style that the variable `INTERACTION` names; `http` if it is not set.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_env() -> Result<Self> {
        match std::env::var("INTERACTION") {
            Ok(name) if !name.is_empty() => Ok(name.parse().map_err(|error| anyhow!("INTERACTION: {error}"))?),
            _ => Ok(Self::Http),
        }
    }
}

impl FromStr for Interaction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Http, Self::NotifyBroker, Self::Broker];
        let found = all.into_iter().find(|interaction| interaction.as_str() == name);
        found.ok_or_else(|| format!("{name} is none of http, notify-broker and broker"))
    }
}

/// Which databases the services keep their data in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Database {
    /// A server.
    Postgres,
    /// A file for each service.
    #[default]
    Sqlite,
}

impl Database {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Database::Postgres => "postgres",
            Database::Sqlite => "sqlite",
        }
    }

    /// The database that the variable `DATABASE` names; SQLite if it is not set.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_env() -> Result<Self> {
        match std::env::var("DATABASE") {
            Ok(name) if !name.is_empty() => {
                Self::from_str(&name, false).map_err(|_| anyhow!("DATABASE: {name} is neither postgres nor sqlite"))
            }
            _ => Ok(Self::Sqlite),
        }
    }
}

/// Where the databases, the broker and the mail server are, and how many operators run.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// DATABASE_URL of billing; a SQLite file of the stack's own if not given.
    pub billing_database: Option<String>,
    /// DATABASE_URL of notify; a SQLite file of the stack's own if not given.
    pub notify_database: Option<String>,
    /// DATABASE_URL of the archive; a SQLite file of the stack's own if not given.
    pub archive_database: Option<String>,
    /// SMTP_URL.
    pub smtp_url: String,
    /// How the services talk.
    pub interaction: Interaction,
    /// The broker, for all but [`Interaction::Http`].
    pub nats: Option<BrokerAccess>,
    /// Operators, of which one works at a time.
    pub operators: usize,
    /// Servers of the public API, all of which work.
    pub api_servers: usize,
    /// Port of the public API's first server; a free one if not given.
    pub port: Option<u16>,
    /// More environment, which goes before the stack's own: service (`billing`, `notify`,
    /// `archive`, `api-server` and `operator` for all of them, `operator-0` …), variable, value.
    pub env: Vec<(&'static str, &'static str, String)>,
    /// Where the services' programs are; beside the running one if not given.
    pub programs: Option<PathBuf>,
}

impl StackOptions {
    /// SQLite, this mail server, no broker, one operator, one server of the public API.
    pub fn new(smtp_url: String) -> Self {
        StackOptions {
            billing_database: None,
            notify_database: None,
            archive_database: None,
            smtp_url,
            interaction: Interaction::Http,
            nats: None,
            operators: 1,
            api_servers: 1,
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

    /// The environment by which a service (`operator`, `billing` or `notify`) finds
    /// the broker; nothing if it has no use for one.
    fn broker_env(&self, service: &str) -> Result<Vec<(&'static str, String)>> {
        let uses_it = match self.interaction {
            Interaction::Http => false,
            Interaction::NotifyBroker => service != "billing",
            Interaction::Broker => true,
        };
        let mut env = Vec::new();
        if service == "operator" {
            // Always, or it would be that of whoever runs the tests.
            env.push(("INTERACTION", self.interaction.as_str().to_owned()));
        }
        if !uses_it {
            return Ok(env);
        }
        let Some(nats) = &self.nats else {
            bail!("interaction {} needs a broker: set StackOptions::nats", self.interaction.as_str());
        };
        let password = match service {
            "operator" => &nats.operator,
            "billing" => &nats.billing,
            _ => &nats.notify,
        };
        env.extend([("NATS_URL", nats.url.clone()), ("NATS_PASSWORD", password.clone())]);
        Ok(env)
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

    /// Where its metrics are, as Prometheus reads them.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`].
    pub async fn ready(&self) -> Result<()> {
        self.process.wait_http(&format!("http://{}/readyz", self.admin), READY_LIMIT).await
    }
}

/// The services in a namespace of their own.
#[derive(Debug)]
pub struct Stack {
    /// Where the orders are.
    pub namespace: String,
    /// The public API.
    pub api_server: Service,
    /// More servers of the public API, beside the first one.
    pub more_api_servers: Vec<Service>,
    /// The operators.
    pub operators: Vec<Service>,
    /// Billing.
    pub billing: Service,
    /// Notify.
    pub notify: Service,
    /// The archive.
    pub archive: Service,
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
        install_crds(&client).await?;
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

        let mut env = vec![
            ("DATABASE_URL", options.billing_database.clone().unwrap_or_else(|| sqlite("billing.db"))),
            ("OPERATOR_ACCOUNT", tokens.operator_account.clone()),
            ("API_SERVER_ACCOUNT", tokens.api_server_account.clone()),
            ("AUDIT_ACCOUNT", tokens.audit_account.clone()),
        ];
        env.extend(options.broker_env("billing")?);
        let billing = start("billing", "orders-billing", None, env)?;
        let mut env = vec![
            ("DATABASE_URL", options.notify_database.clone().unwrap_or_else(|| sqlite("notify.db"))),
            ("OPERATOR_ACCOUNT", tokens.operator_account.clone()),
            ("SMTP_URL", options.smtp_url.clone()),
            ("AUDIT_ACCOUNT", tokens.audit_account.clone()),
        ];
        env.extend(options.broker_env("notify")?);
        let notify = start("notify", "orders-notify", None, env)?;
        let env = vec![
            ("DATABASE_URL", options.archive_database.clone().unwrap_or_else(|| sqlite("archive.db"))),
            ("OPERATOR_ACCOUNT", tokens.operator_account.clone()),
            ("API_SERVER_ACCOUNT", tokens.api_server_account.clone()),
            ("AUDIT_ACCOUNT", tokens.audit_account.clone()),
        ];
        let archive = start("archive", "orders-archive", None, env)?;
        let services = [
            ("NAMESPACE", namespace.to_owned()),
            ("BILLING_URL", billing.url.clone()),
            ("NOTIFY_URL", notify.url.clone()),
            ("ARCHIVE_URL", archive.url.clone()),
        ];
        let mut operators = Vec::new();
        for number in 0..options.operators {
            let name = format!("operator-{number}");
            let mut env = services.to_vec();
            env.extend([
                ("BILLING_TOKEN_FILE", tokens.path("operator-billing")),
                ("NOTIFY_TOKEN_FILE", tokens.path("operator-notify")),
                ("ARCHIVE_TOKEN_FILE", tokens.path("operator-archive")),
                ("LEASE_NAMESPACE", namespace.to_owned()),
                ("LEASE_SECONDS", "4".to_owned()),
                ("POD_NAME", name.clone()),
            ]);
            env.extend(options.broker_env("operator")?);
            operators.push(start(&name, "orders-operator", None, env)?);
        }
        let mut env = services.to_vec();
        env.extend([
            ("BILLING_TOKEN_FILE", tokens.path("api-server-billing")),
            ("ARCHIVE_TOKEN_FILE", tokens.path("api-server-archive")),
        ]);
        let api_server = start("api-server", "orders-api-server", options.port, env.clone())?;
        let more_api_servers = (1..options.api_servers)
            .map(|number| start(&format!("api-server-{number}"), "orders-api-server", None, env.clone()))
            .collect::<Result<_>>()?;

        let (namespace, directory) = (namespace.to_owned(), directory.to_owned());
        let stack = Stack { namespace, api_server, more_api_servers, operators, billing, notify, archive, directory };
        let first = [&stack.billing, &stack.notify, &stack.archive, &stack.api_server];
        for service in first.into_iter().chain(&stack.more_api_servers).chain(&stack.operators) {
            service.ready().await?;
        }
        Ok(stack)
    }

    /// How it is audited, from this cluster's point of view.
    pub fn audit(&self, cluster: &Cluster) -> Audit {
        let token = |service: &str| self.directory.join(format!("audit-{service}.token")).into_os_string();
        Audit(vec![
            ("KUBECONFIG", cluster.kubeconfig.clone().into_os_string()),
            ("NAMESPACE", self.namespace.clone().into()),
            ("BILLING_URL", self.billing.url.clone().into()),
            ("NOTIFY_URL", self.notify.url.clone().into()),
            ("ARCHIVE_URL", self.archive.url.clone().into()),
            ("BILLING_TOKEN_FILE", token("billing")),
            ("NOTIFY_TOKEN_FILE", token("notify")),
            ("ARCHIVE_TOKEN_FILE", token("archive")),
        ])
    }
}

/// How `orders-audit` is run against a stack.
#[derive(Clone, Debug)]
pub struct Audit(Vec<(&'static str, OsString)>);

impl Audit {
    /// Runs it with these arguments, to its end.
    ///
    /// # Errors
    /// When it has not been built, or does not end within `limit`. What it finds is no error.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<Audited> {
        let mut command = Command::new(binary("orders-audit")?);
        command.args(arguments).envs(self.0.iter().map(|(key, value)| (key, value))).kill_on_drop(true);
        let output = tokio::time::timeout(limit, command.output()).await.context("orders-audit did not end")??;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Audited { exit_code: output.status.code(), output: text(&output.stdout) + &text(&output.stderr) })
    }
}

/// What an audit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// 0: all holds. 1: something does not. 2: it was not found out.
    pub exit_code: Option<i32>,
    /// What it said.
    pub output: String,
}

/// Tokens of the callers, kept in files as the kubelet would.
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
        for account in ["operator", "api-server", "audit"] {
            tokens(account, "archive").await?;
        }
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

/// Installs the CRDs as this checkout generates it, and waits until they are served.
///
/// # Errors
/// If the API server refuses one, or does not serve it in time.
pub async fn install_crds(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in orders_crds::all() {
        let params = PatchParams::apply("orders-testbed").force();
        crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.context("installing the CRDs")?;
    }
    wait_for("the CRDs to be served", READY_LIMIT, || {
        let orders: Api<Order> = Api::namespaced(client.clone(), "default");
        let customers: Api<Customer> = Api::namespaced(client.clone(), "default");
        let one = kube::api::ListParams::default().limit(1);
        async move {
            orders.list(&one).await.ok()?;
            customers.list(&one).await.ok()
        }
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(interaction: Interaction) -> StackOptions {
        let nats = BrokerAccess {
            url: "nats://127.0.0.1:4222".to_owned(),
            operator: "o".to_owned(),
            billing: "b".to_owned(),
            notify: "n".to_owned(),
        };
        StackOptions { interaction, nats: Some(nats), ..StackOptions::new("smtp://127.0.0.1:25".to_owned()) }
    }

    fn variables(interaction: Interaction, service: &str) -> Vec<&'static str> {
        let env = options(interaction).broker_env(service).unwrap();
        env.into_iter().map(|(variable, _)| variable).collect()
    }

    #[test]
    fn each_service_hears_of_the_broker_only_where_it_uses_it() {
        for service in ["billing", "notify"] {
            assert!(variables(Interaction::Http, service).is_empty(), "{service}");
        }
        assert_eq!(variables(Interaction::Http, "operator"), ["INTERACTION"]);
        let (own, all) = (["NATS_URL", "NATS_PASSWORD"], ["INTERACTION", "NATS_URL", "NATS_PASSWORD"]);
        assert_eq!(variables(Interaction::NotifyBroker, "operator"), all);
        assert!(variables(Interaction::NotifyBroker, "billing").is_empty());
        assert_eq!(variables(Interaction::NotifyBroker, "notify"), own);
        assert_eq!(variables(Interaction::Broker, "operator"), all);
        assert_eq!(variables(Interaction::Broker, "billing"), own);
        assert_eq!(variables(Interaction::Broker, "notify"), own);
    }

    #[test]
    fn a_broker_that_is_missing_is_named() {
        let options = StackOptions { nats: None, ..options(Interaction::Broker) };
        assert!(options.broker_env("billing").unwrap_err().to_string().contains("StackOptions::nats"));
        assert!(options.broker_env("operator").is_err());
    }
}
