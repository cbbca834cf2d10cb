//! `kubectl orders audit`: runs the release's audit as a Job and prints its report.

mod interrupt;
mod job;
mod state;

use std::{collections::BTreeSet, io, process::ExitCode, time::Duration};

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Pod,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use tokio::time::Instant;

use crate::{
    access::{KubeconfigError, connect, error_message, select_only},
    arguments::{AccessArgs, AuditArgs, Format, PrintArgs},
    commands::print_text,
};
use interrupt::Interrupt;
use state::{AuditResult, State};

/// The labels that the chart gives the CronJob of the audit.
pub const LABELS: &str = "app.kubernetes.io/part-of=orders,app.kubernetes.io/component=audit";

/// The interval between two polls of the Job.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time limit of one request to Kubernetes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum size of a log, in bytes. By default, a kubelet keeps less of a log.
const MAX_LOG: i64 = 16 * 1024 * 1024;

/// The reason why the result of the audit could not be determined.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The report does not have this format.
    #[error("the audit prints text or, with --output json, JSON")]
    UnsupportedOutput,
    /// The command line selects the API by its URL, so Kubernetes is not reached.
    #[error("the audit runs as a Job in Kubernetes, not through the API: do not set --server or ORDERS_SERVER")]
    ServerOption,
    /// Kubernetes cannot be reached.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// There is no audit in the namespace.
    #[error(
        "there is no audit in namespace {0}. Give the namespace of the release with -n (`kubectl get cronjobs -A -l {LABELS}` shows \
         it); its value audit.enabled must be true"
    )]
    NoCronJob(String),
    /// There are several releases in the namespace.
    #[error("namespace {namespace} has several audits: choose one with --cronjob ({names})")]
    SeveralCronJobs {
        /// The namespace.
        namespace: String,
        /// The names of the CronJobs.
        names: String,
    },
    /// The CronJob that was named is not that of an audit.
    #[error("cronjob {0} is not that of an audit: it has no container named {container}", container = job::CONTAINER)]
    NotAnAudit(String),
    /// Signals cannot be caught.
    #[error("signals such as Ctrl-C cannot be caught: {0}")]
    Signals(#[from] io::Error),
    /// Kubernetes refused a request, or did not respond.
    #[error("{failure}: {error}")]
    Kubernetes {
        /// A description of the failed request.
        failure: String,
        /// The cause.
        error: String,
        /// Whether Kubernetes refused the request, so that a retry is of no use.
        is_refused: bool,
    },
    /// Another client deleted the Job.
    #[error("job {0} was deleted")]
    JobDeleted(String),
    /// The Job ended without a report.
    #[error("the audit has no result: {0}")]
    NoResult(String),
    /// The Job did not end in time.
    #[error("the audit did not end within {} seconds: {state}", timeout.as_secs())]
    TimedOut {
        /// How long the command waited.
        timeout: Duration,
        /// The last state of the audit.
        state: String,
    },
    /// The user no longer wants to wait.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the audit. The exit code is 0 only if all checks pass, 1 if a check fails, and 2 if the
/// result could not be determined.
pub async fn run(access: &AccessArgs, print: &PrintArgs, arguments: &AuditArgs) -> ExitCode {
    match audit(access, print, arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the audit and returns whether all checks pass.
async fn audit(access: &AccessArgs, print: &PrintArgs, arguments: &AuditArgs) -> Result<bool, AuditError> {
    let output = report_format(print.output)?;
    if access.server.is_some() {
        return Err(AuditError::ServerOption);
    }
    let (client, namespace) = connect(access).await?;
    let cron_job = find_cron_job(&client, &namespace, arguments.cron_job.as_deref()).await?;
    let job = job::build(&cron_job, output).ok_or_else(|| AuditError::NotAnAudit(cron_job.name_any()))?;
    // Catch signals before there is a Job, so that the Job is deleted in any case.
    let mut interrupt = Interrupt::catch()?;
    let run = AuditRun::start(client, &namespace, &job).await?;
    eprintln!("waiting for job {} in namespace {namespace} to end", run.name);
    let result = tokio::select! {
        result = run.print_report(arguments.timeout) => result,
        () = interrupt.wait() => Err(AuditError::Interrupted),
    };
    if let Err(error) = run.delete().await {
        eprintln!("warning: {error}");
    }
    result
}

/// The name that the audit has for a format of its report.
fn report_format(format: Option<Format>) -> Result<&'static str, AuditError> {
    match format {
        None => Ok("text"),
        Some(Format::Json) => Ok("json"),
        Some(Format::Wide | Format::Yaml | Format::Name) => Err(AuditError::UnsupportedOutput),
    }
}

async fn find_cron_job(client: &Client, namespace: &str, name: Option<&str>) -> Result<CronJob, AuditError> {
    let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), namespace);
    match name {
        Some(name) => send(&format!("cronjob {name} cannot be read"), cron_jobs.get(name)).await,
        None => {
            let failure = format!("the cronjobs of namespace {namespace} cannot be listed");
            let found = send(&failure, cron_jobs.list(&ListParams::default().labels(LABELS))).await?;
            select_cron_job(namespace, found.items)
        }
    }
}

fn select_cron_job(namespace: &str, found: Vec<CronJob>) -> Result<CronJob, AuditError> {
    let namespace = namespace.to_owned();
    select_only(found).map_err(|names| match names {
        None => AuditError::NoCronJob(namespace),
        Some(names) => AuditError::SeveralCronJobs { namespace, names },
    })
}

/// A started audit.
struct AuditRun {
    jobs: Api<Job>,
    pods: Api<Pod>,
    /// The name of its Job.
    name: String,
}

impl AuditRun {
    async fn start(client: Client, namespace: &str, job: &Job) -> Result<Self, AuditError> {
        let (jobs, pods) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
        let failure = format!("no job can be created in namespace {namespace}");
        let name = send(&failure, jobs.create(&PostParams::default(), job)).await?.name_any();
        Ok(AuditRun { jobs, pods, name })
    }

    /// Waits until the audit ends and prints the report. Returns whether all checks pass.
    async fn print_report(&self, timeout: Duration) -> Result<bool, AuditError> {
        match self.wait_for_end(timeout).await? {
            AuditResult::Reported { pod, has_passed } => {
                print_text(&self.read_log(&pod).await?);
                Ok(has_passed)
            }
            AuditResult::Failed { reason, pod } => {
                // The log is then not a report, so it is printed to standard error.
                if let Some(pod) = pod {
                    eprint!("{}", self.read_log(&pod).await.unwrap_or_else(|error| format!("{error}\n")));
                }
                Err(AuditError::NoResult(reason))
            }
        }
    }

    async fn wait_for_end(&self, timeout: Duration) -> Result<AuditResult, AuditError> {
        let (deadline, mut printed) = (Instant::now() + timeout, BTreeSet::new());
        loop {
            let (description, is_problem) = match self.read_state().await {
                Ok(State::Ended(result)) => return Ok(result),
                Ok(State::Waiting { description, is_problem }) => (description, is_problem),
                Err(error @ AuditError::Kubernetes { is_refused: false, .. }) => (error.to_string(), true),
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(AuditError::TimedOut { timeout, state: description });
            }
            // Print each problem once: some problems alternate.
            if is_problem && printed.insert(description.clone()) {
                eprintln!("{description}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn read_state(&self) -> Result<State, AuditError> {
        // Read the Job first: when it has failed, its pods have ended.
        let job = send(&format!("job {} cannot be read", self.name), self.jobs.get_opt(&self.name)).await?;
        let job = job.ok_or_else(|| AuditError::JobDeleted(self.name.clone()))?;
        let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", self.name));
        let pods = send(&format!("the pods of job {} cannot be listed", self.name), self.pods.list(&selector)).await?;
        Ok(state::derive(&job, &pods.items))
    }

    async fn read_log(&self, pod: &str) -> Result<String, AuditError> {
        let params = LogParams { container: Some(job::CONTAINER.to_owned()), limit_bytes: Some(MAX_LOG), ..LogParams::default() };
        send(&format!("the log of pod {pod} cannot be read"), self.pods.logs(pod, &params)).await
    }

    async fn delete(&self) -> Result<(), AuditError> {
        let failure = format!("job {} cannot be deleted", self.name);
        send(&failure, self.jobs.delete(&self.name, &DeleteParams::background())).await.map(drop)
    }
}

/// Sends one request to Kubernetes. `failure` describes the request in the error.
async fn send<T>(failure: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, AuditError> {
    let to_error = |error: String, is_refused| AuditError::Kubernetes { failure: failure.to_owned(), error, is_refused };
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let is_refused =
                matches!(&error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429);
            Err(to_error(error_message(error), is_refused))
        }
        Err(_) => Err(to_error(format!("no response within {} seconds", REQUEST_TIMEOUT.as_secs()), false)),
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn named(name: &str) -> CronJob {
        CronJob { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..CronJob::default() }
    }

    #[test]
    fn the_error_without_an_audit_says_what_to_do_and_with_several_lists_them() {
        assert_eq!(select_cron_job("shop", vec![named("orders-audit")]).unwrap().name_any(), "orders-audit");
        let none = select_cron_job("shop", Vec::new()).unwrap_err().to_string();
        assert!(none.contains("namespace shop. Give the namespace of the release with -n"), "{none}");
        let several = select_cron_job("shop", vec![named("a"), named("b"), named("c")]).unwrap_err().to_string();
        assert!(several.contains("--cronjob (a, b, c)"), "{several}");
    }

    #[test]
    fn a_report_is_text_or_json() {
        assert!(matches!((report_format(None), report_format(Some(Format::Json))), (Ok("text"), Ok("json"))));
        for format in [Format::Wide, Format::Yaml, Format::Name] {
            assert!(matches!(report_format(Some(format)), Err(AuditError::UnsupportedOutput)), "{format:?}");
        }
    }

    #[tokio::test]
    async fn the_server_option_is_refused_before_any_request() {
        let access = AccessArgs { server: Some("http://arch.homework".parse().unwrap()), ..AccessArgs::default() };
        let arguments = AuditArgs { cron_job: None, timeout: REQUEST_TIMEOUT };
        assert!(matches!(audit(&access, &PrintArgs::default(), &arguments).await, Err(AuditError::ServerOption)));
    }
}
