//! `kubectl orders audit`: runs the release's audit as a Job and tells what it found.

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

/// What the chart labels the audit's CronJob with.
pub const LABELS: &str = "app.kubernetes.io/part-of=orders,app.kubernetes.io/component=audit";

/// Between two looks at the Job.
const LOOK: Duration = Duration::from_secs(1);

/// How long one request to Kubernetes may take.
const REQUEST: Duration = Duration::from_secs(30);

/// More than a kubelet keeps of a log by default, in bytes.
const MAX_LOG: i64 = 16 * 1024 * 1024;

/// It was not found out whether everything holds.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A form that the report does not have.
    #[error("the audit is printed as text or, with --output json, as JSON")]
    Output,
    /// Only the API would be asked.
    #[error("the audit is run by Kubernetes, not by the API: it cannot be had with --server or ORDERS_SERVER")]
    Server,
    /// There is no way to Kubernetes.
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
        /// Where.
        namespace: String,
        /// Their names.
        names: String,
    },
    /// The CronJob that was named is another's.
    #[error("cronjob {0} is not one of the audit: it has no container named {container}", container = job::CONTAINER)]
    NotOfTheAudit(String),
    /// Signals cannot be caught.
    #[error("the operating system does not pass on Ctrl-C: {0}")]
    Signals(#[from] io::Error),
    /// Kubernetes refused, or did not answer.
    #[error("{what}: {error}")]
    Kubernetes {
        /// What cannot be done.
        what: String,
        /// Why not.
        error: String,
        /// Whether Kubernetes said so itself, so that asking again is of no use.
        refused: bool,
    },
    /// Somebody else deleted the Job.
    #[error("job {0} is gone")]
    Gone(String),
    /// The Job ended without a verdict.
    #[error("it was not found out whether everything holds: {0}")]
    Failed(String),
    /// The Job did not end in time.
    #[error("the audit did not end within {} seconds: {what}", limit.as_secs())]
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
        /// What for, last.
        what: String,
    },
    /// The user no longer wants to wait.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the audit. Exit code 0 only if everything holds, 1 if something does not, 2 if it was not found out.
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

/// Whether everything holds.
async fn audit(access: &AccessArgs, print: &PrintArgs, wanted: &AuditArgs) -> Result<bool, AuditError> {
    let output = output(print.output)?;
    if access.server.is_some() {
        return Err(AuditError::Server);
    }
    let (client, namespace) = kubernetes(access).await?;
    let cron_job = find(&client, &namespace, wanted.cron_job.as_deref()).await?;
    let job = job::of(&cron_job, output).ok_or_else(|| AuditError::NotOfTheAudit(cron_job.name_any()))?;
    // Caught before there is a Job, so that it is deleted in any case.
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

/// What the audit calls a form of its report.
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

/// An audit that was started.
struct Run {
    jobs: Api<Job>,
    pods: Api<Pod>,
    /// Its Job's name.
    name: String,
}

impl Run {
    async fn start(client: Client, namespace: &str, job: &Job) -> Result<Self, AuditError> {
        let (jobs, pods) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
        let what = format!("no job can be created in namespace {namespace}");
        let name = ask(&what, jobs.create(&PostParams::default(), job)).await?.name_any();
        Ok(Run { jobs, pods, name })
    }

    /// Waits for the end and prints the report; whether everything holds.
    async fn report(&self, limit: Duration) -> Result<bool, AuditError> {
        match self.end(limit).await? {
            Ended::Reported { pod, holds } => {
                say(&self.log(&pod).await?);
                Ok(holds)
            }
            Ended::Failed { why, pod } => {
                // What it says then is no report.
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
            // Once each: some take turns.
            if trouble && told.insert(what.clone()) {
                eprintln!("{what}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<State, AuditError> {
        // The Job first: when it has failed, its pods have ended.
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
