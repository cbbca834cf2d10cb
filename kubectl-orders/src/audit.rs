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
    access::{KubeconfigError, kubernetes, reason, the_only_one},
    arguments::{AccessArgs, AuditArgs, Format, PrintArgs},
    commands::say,
};
use interrupt::Interrupt;
use state::{Ended, State};

/// The labels that the chart gives the CronJob of the audit.
pub const LABELS: &str = "app.kubernetes.io/part-of=orders,app.kubernetes.io/component=audit";

/// The interval between two polls of the Job.
const LOOK: Duration = Duration::from_secs(1);

/// The time limit of one request to Kubernetes.
const REQUEST: Duration = Duration::from_secs(30);

/// The maximum size of a log, in bytes. By default, a kubelet keeps less of a log.
const MAX_LOG: i64 = 16 * 1024 * 1024;

/// The reason why the result of the audit could not be determined.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The report does not have this format.
    #[error("the audit is printed as text or, with --output json, as JSON")]
    Output,
    /// The command line selects the API by its URL, so Kubernetes is not reached.
    #[error("the audit is run by Kubernetes, not by the API: it cannot be had with --server or ORDERS_SERVER")]
    Server,
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
    /// The CronJob that was named is not one of the audit.
    #[error("cronjob {0} is not one of the audit: it has no container named {container}", container = job::CONTAINER)]
    NotOfTheAudit(String),
    /// Signals cannot be caught.
    #[error("the operating system does not pass on Ctrl-C: {0}")]
    Signals(#[from] io::Error),
    /// Kubernetes refused a request, or did not respond.
    #[error("{what}: {error}")]
    Kubernetes {
        /// A description of the failed request.
        what: String,
        /// The cause.
        error: String,
        /// Whether Kubernetes refused the request, so that another attempt is of no use.
        refused: bool,
    },
    /// Another client deleted the Job.
    #[error("job {0} is gone")]
    Gone(String),
    /// The Job ended without a report.
    #[error("it was not found out whether everything holds: {0}")]
    Failed(String),
    /// The Job did not end in time.
    #[error("the audit did not end within {} seconds: {what}", limit.as_secs())]
    TimedOut {
        /// How long the command waited.
        limit: Duration,
        /// The last state of the audit.
        what: String,
    },
    /// The user no longer wants to wait.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the audit. The exit code is 0 only if all checks pass, 1 if a check fails, and 2 if the
/// result could not be determined.
pub async fn run(access: &AccessArgs, print: &PrintArgs, wanted: &AuditArgs) -> ExitCode {
    match audit(access, print, wanted).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the audit and returns whether all checks pass.
async fn audit(access: &AccessArgs, print: &PrintArgs, wanted: &AuditArgs) -> Result<bool, AuditError> {
    let output = output(print.output)?;
    if access.server.is_some() {
        return Err(AuditError::Server);
    }
    let (client, namespace) = kubernetes(access).await?;
    let cron_job = find(&client, &namespace, wanted.cron_job.as_deref()).await?;
    let job = job::of(&cron_job, output).ok_or_else(|| AuditError::NotOfTheAudit(cron_job.name_any()))?;
    // Catch signals before there is a Job, so that the Job is deleted in any case.
    let mut interrupt = Interrupt::catch()?;
    let run = Run::start(client, &namespace, &job).await?;
    eprintln!("waiting for job {} in namespace {namespace} to end", run.name);
    let holds = tokio::select! {
        holds = run.report(wanted.timeout) => holds,
        () = interrupt.came() => Err(AuditError::Interrupted),
    };
    if let Err(error) = run.delete().await {
        eprintln!("warning: {error}");
    }
    holds
}

/// The name that the audit has for a format of its report.
fn output(format: Option<Format>) -> Result<&'static str, AuditError> {
    match format {
        None => Ok("text"),
        Some(Format::Json) => Ok("json"),
        Some(Format::Wide | Format::Yaml | Format::Name) => Err(AuditError::Output),
    }
}

async fn find(client: &Client, namespace: &str, name: Option<&str>) -> Result<CronJob, AuditError> {
    let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), namespace);
    match name {
        Some(name) => ask(&format!("cronjob {name} cannot be read"), cron_jobs.get(name)).await,
        None => {
            let what = format!("the cronjobs of namespace {namespace} cannot be listed");
            let found = ask(&what, cron_jobs.list(&ListParams::default().labels(LABELS))).await?;
            the_only_cron_job(namespace, found.items)
        }
    }
}

fn the_only_cron_job(namespace: &str, found: Vec<CronJob>) -> Result<CronJob, AuditError> {
    let namespace = namespace.to_owned();
    the_only_one(found).map_err(|names| match names {
        None => AuditError::NoCronJob(namespace),
        Some(names) => AuditError::SeveralCronJobs { namespace, names },
    })
}

/// A started audit.
struct Run {
    jobs: Api<Job>,
    pods: Api<Pod>,
    /// The name of its Job.
    name: String,
}

impl Run {
    async fn start(client: Client, namespace: &str, job: &Job) -> Result<Self, AuditError> {
        let (jobs, pods) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
        let what = format!("no job can be created in namespace {namespace}");
        let name = ask(&what, jobs.create(&PostParams::default(), job)).await?.name_any();
        Ok(Run { jobs, pods, name })
    }

    /// Waits until the audit ends and prints the report. Returns whether all checks pass.
    async fn report(&self, limit: Duration) -> Result<bool, AuditError> {
        match self.end(limit).await? {
            Ended::Reported { pod, holds } => {
                say(&self.log(&pod).await?);
                Ok(holds)
            }
            Ended::Failed { why, pod } => {
                // The log is then not a report, so it is printed to standard error.
                if let Some(pod) = pod {
                    eprint!("{}", self.log(&pod).await.unwrap_or_else(|error| format!("{error}\n")));
                }
                Err(AuditError::Failed(why))
            }
        }
    }

    async fn end(&self, limit: Duration) -> Result<Ended, AuditError> {
        let (deadline, mut told) = (Instant::now() + limit, BTreeSet::new());
        loop {
            let (what, trouble) = match self.look().await {
                Ok(State::Ended(ended)) => return Ok(ended),
                Ok(State::Waiting { what, trouble }) => (what, trouble),
                Err(error @ AuditError::Kubernetes { refused: false, .. }) => (error.to_string(), true),
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(AuditError::TimedOut { limit, what });
            }
            // Print each problem once: some problems alternate.
            if trouble && told.insert(what.clone()) {
                eprintln!("{what}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<State, AuditError> {
        // Read the Job first: when it has failed, its pods have ended.
        let job = ask(&format!("job {} cannot be read", self.name), self.jobs.get_opt(&self.name)).await?;
        let job = job.ok_or_else(|| AuditError::Gone(self.name.clone()))?;
        let of_the_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", self.name));
        let pods = ask(&format!("the pods of job {} cannot be listed", self.name), self.pods.list(&of_the_job)).await?;
        Ok(state::of(&job, &pods.items))
    }

    async fn log(&self, pod: &str) -> Result<String, AuditError> {
        let of_the_audit =
            LogParams { container: Some(job::CONTAINER.to_owned()), limit_bytes: Some(MAX_LOG), ..LogParams::default() };
        ask(&format!("the log of pod {pod} cannot be read"), self.pods.logs(pod, &of_the_audit)).await
    }

    async fn delete(&self) -> Result<(), AuditError> {
        let what = format!("job {} cannot be deleted", self.name);
        ask(&what, self.jobs.delete(&self.name, &DeleteParams::background())).await.map(drop)
    }
}

/// Makes one request to Kubernetes.
async fn ask<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, AuditError> {
    let failed = |error: String, refused| AuditError::Kubernetes { what: what.to_owned(), error, refused };
    match tokio::time::timeout(REQUEST, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let refused = matches!(&error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429);
            Err(failed(reason(error), refused))
        }
        Err(_) => Err(failed(format!("no answer within {} seconds", REQUEST.as_secs()), false)),
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
    fn without_an_audit_one_is_told_what_to_do_and_with_several_which_there_are() {
        assert_eq!(the_only_cron_job("shop", vec![named("orders-audit")]).unwrap().name_any(), "orders-audit");
        let none = the_only_cron_job("shop", Vec::new()).unwrap_err().to_string();
        assert!(none.contains("namespace shop. Give the namespace of the release with -n"), "{none}");
        let several = the_only_cron_job("shop", vec![named("a"), named("b"), named("c")]).unwrap_err().to_string();
        assert!(several.contains("--cronjob (a, b, c)"), "{several}");
    }

    #[test]
    fn a_report_is_text_or_json() {
        assert!(matches!((output(None), output(Some(Format::Json))), (Ok("text"), Ok("json"))));
        for format in [Format::Wide, Format::Yaml, Format::Name] {
            assert!(matches!(output(Some(format)), Err(AuditError::Output)), "{format:?}");
        }
    }

    #[tokio::test]
    async fn a_server_is_refused_before_anything_is_asked() {
        let access = AccessArgs { server: Some("http://arch.homework".parse().unwrap()), ..AccessArgs::default() };
        let wanted = AuditArgs { cron_job: None, timeout: REQUEST };
        assert!(matches!(audit(&access, &PrintArgs::default(), &wanted).await, Err(AuditError::Server)));
    }
}
