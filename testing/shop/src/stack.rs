//! Starts all services together, as one stack.

use std::path::{Path, PathBuf};

use anyhow::Result;
use orders_testbed::{Cluster, free_port};

use crate::audit::Audit;
use crate::crds::install_crds;
use crate::options::StackOptions;
use crate::service::{Service, ServiceSettings};
use crate::tokens::Tokens;

/// The time limits of notify's conversation with the mail server, in seconds.
const SMTP_TIMEOUTS: [&str; 5] = [
    "SMTP_CONNECT_TIMEOUT_SECONDS",
    "SMTP_GREETING_TIMEOUT_SECONDS",
    "SMTP_COMMAND_TIMEOUT_SECONDS",
    "SMTP_DATA_TIMEOUT_SECONDS",
    "SMTP_TRANSFER_TIMEOUT_SECONDS",
];

/// The running services of one namespace.
#[derive(Debug)]
pub struct Stack {
    /// The namespace of the orders.
    pub namespace: String,
    /// The public API.
    pub api_server: Service,
    /// The servers of the public API other than the first one.
    pub more_api_servers: Vec<Service>,
    /// The operators.
    pub operators: Vec<Service>,
    /// Billing.
    pub billing: Service,
    /// Notify.
    pub notify: Service,
    /// The archive.
    pub archive: Service,
    /// The directory of logs, databases and tokens.
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

    /// Starts the services as [`Stack::start`] does, but in an existing namespace.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start_in(cluster: &Cluster, namespace: &str, directory: &Path, options: StackOptions) -> Result<Self> {
        let stack = Self::spawn_in(cluster, namespace, directory, options).await?;
        let first = [&stack.billing, &stack.notify, &stack.archive, &stack.api_server];
        for service in first.into_iter().chain(&stack.more_api_servers).chain(&stack.operators) {
            service.wait_ready().await?;
        }
        Ok(stack)
    }

    /// Starts the services as [`Stack::start_in`] does, but does not wait until they are ready.
    ///
    /// # Errors
    /// If a program cannot be started.
    pub async fn spawn_in(cluster: &Cluster, namespace: &str, directory: &Path, options: StackOptions) -> Result<Self> {
        let client = cluster.client().await?;
        install_crds(&client).await?;
        let tokens = Tokens::create(&client, namespace, directory).await?;
        let sqlite = |name: &str| format!("sqlite://{}", directory.join(name).display());
        let kubeconfig = ("KUBECONFIG".to_owned(), cluster.kubeconfig.display().to_string());
        let start = |name: &str, program: &str, port: Option<u16>, env: Vec<(&str, String)>| -> Result<Service> {
            let (listen, admin) = (format!("127.0.0.1:{}", port.unwrap_or_else(free_port)), format!("127.0.0.1:{}", free_port()));
            let mut all =
                vec![kubeconfig.clone(), ("LISTEN_ADDR".to_owned(), listen.clone()), ("ADMIN_ADDR".to_owned(), admin.clone())];
            all.extend(env.into_iter().map(|(key, value)| (key.to_owned(), value)));
            all.extend(options.additional_env(name));
            let program = options.program(program)?;
            let settings = ServiceSettings { name: name.to_owned(), program, directory: directory.to_owned(), env: all };
            Ok(Service { process: settings.spawn()?, url: format!("http://{listen}"), admin, settings })
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
        // The tests wait until an attempt ends in which the mail server does not reply.
        env.extend(SMTP_TIMEOUTS.map(|name| (name, "10".to_owned())));
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
        Ok(Stack { namespace, api_server, more_api_servers, operators, billing, notify, archive, directory })
    }

    /// The audit of this stack, with the kubeconfig of this cluster.
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
