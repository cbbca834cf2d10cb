//! The processes into which faults are injected: they can be killed, suspended and restarted.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use orders_shop::{Service, Stack};
use orders_testbed::{Postgres, Signal, WAIT_TIMEOUT, wait_for};
use rustix::process::{Pid, kill_process};
use tokio::sync::Mutex;

use crate::effect::Component;

/// The time limit for another operator to acquire the Lease of a suspended leader.
const TAKEOVER_TIMEOUT: Duration = WAIT_TIMEOUT;

/// How long the new leader works alone before the old one resumes.
const HEAD_START: Duration = Duration::from_millis(1500);

/// The interval between checks for exited components. The kubelet waits longer.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);

/// The services, each of which can be killed and restarted separately.
#[derive(Debug)]
pub struct Actors {
    api_server: Mutex<Service>,
    operators: Vec<Mutex<Service>>,
    billing: Mutex<Service>,
    notify: Mutex<Service>,
    archive: Mutex<Service>,
    postgres: Option<Postgres>,
    leases: Api<Lease>,
}

impl Actors {
    /// Creates the actors from the services of this stack and the database server that they use.
    pub fn new(stack: Stack, postgres: Option<Postgres>, client: Client) -> Self {
        Actors {
            leases: Api::namespaced(client, &stack.namespace),
            api_server: Mutex::new(stack.api_server),
            operators: stack.operators.into_iter().map(Mutex::new).collect(),
            billing: Mutex::new(stack.billing),
            notify: Mutex::new(stack.notify),
            archive: Mutex::new(stack.archive),
            postgres,
        }
    }

    fn components(&self) -> impl Iterator<Item = Component> + use<> {
        let operators = (0..self.operators.len()).map(Component::Operator);
        [Component::ApiServer, Component::Billing, Component::Notify, Component::Archive].into_iter().chain(operators)
    }

    /// The process of a component.
    pub fn service(&self, component: Component) -> &Mutex<Service> {
        match component {
            Component::ApiServer => &self.api_server,
            Component::Operator(number) => &self.operators[number],
            Component::Billing => &self.billing,
            Component::Notify => &self.notify,
            Component::Archive => &self.archive,
        }
    }

    /// Kills the component, as a power cut would, and restarts it, as the kubelet would.
    ///
    /// # Errors
    /// If the component cannot be started.
    pub async fn crash(&self, component: Component) -> Result<()> {
        self.service(component).lock().await.restart_without_waiting()
    }

    /// Restarts components that exited by themselves, as the kubelet would: a component
    /// whose database is unavailable at its start logs an error and exits. This function never returns.
    pub async fn keep_running(&self) {
        loop {
            for component in self.components() {
                let mut service = self.service(component).lock().await;
                if service.process.exit_status().is_some()
                    && let Err(error) = service.restart_without_waiting()
                {
                    eprintln!("{component:?} cannot be restarted: {error:#}");
                }
            }
            tokio::time::sleep(RESTART_INTERVAL).await;
        }
    }

    /// Suspends an operator, waits until another operator becomes the leader and works, and resumes the first.
    ///
    /// # Errors
    /// If no other operator becomes the leader.
    pub async fn supersede(&self, component: Component) -> Result<()> {
        let Component::Operator(number) = component else { return Ok(()) };
        self.service(component).lock().await.process.signal(Signal::STOP)?;
        let own = format!("operator-{number}");
        let taken_over = wait_for("another operator to take over", TAKEOVER_TIMEOUT, || async {
            self.leader().await.filter(|leader| *leader != own)
        })
        .await;
        tokio::time::sleep(HEAD_START).await;
        self.service(component).lock().await.process.signal(Signal::CONT)?;
        taken_over.map(drop)
    }

    /// The holder of the Lease.
    pub async fn leader(&self) -> Option<String> {
        self.leases.get("orders-operator").await.ok()?.spec?.holder_identity.filter(|holder| !holder.is_empty())
    }

    /// Makes the database terminate this session.
    ///
    /// # Errors
    /// If the database does not run.
    pub fn terminate_session(&self, session: i32) -> Result<()> {
        self.postgres()?.query(&format!("SELECT pg_terminate_backend({session})")).map(drop)
    }

    /// Kills the database server's process for this session. The server then terminates all
    /// other sessions and recovers from its log.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn crash_database(&self, session: i32) -> Result<()> {
        let pid = Pid::from_raw(session).context("a session has a process id")?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// The database server.
    ///
    /// # Errors
    /// If the services use files.
    pub fn postgres(&self) -> Result<&Postgres> {
        self.postgres.as_ref().context("no PostgreSQL server was started")
    }

    /// The end of each component's log.
    pub async fn logs(&self) -> String {
        let mut logs = String::new();
        for component in self.components() {
            let path = self.service(component).lock().await.process.log().to_owned();
            logs.push_str(&format!("--- {}\n{}\n", path.display(), orders_testbed::tail(&path, 15)));
        }
        logs
    }
}
