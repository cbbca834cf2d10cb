//! Runs a program of the release as a Job, made from a CronJob of the chart, and prints its report.

mod interrupt;
mod manifest;
mod state;

use std::{collections::BTreeSet, io, time::Duration};

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
    arguments::AccessArgs,
    commands::print_text,
};
use interrupt::Interrupt;
pub use manifest::Change;
use state::{RunResult, State};

/// A program that runs as a Job.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name in error messages, such as "audit".
    pub name: &'static str,
    /// The labels that the chart gives its CronJob.
    pub labels: &'static str,
    /// The name that the chart gives its container.
    pub container: &'static str,
    /// The value of the chart without which it does not exist.
    pub required_value: &'static str,
}

/// The interval between two polls of the Job.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time limit of one request to Kubernetes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum size of a log, in bytes. By default, a kubelet keeps less of a log.
const MAX_LOG: i64 = 16 * 1024 * 1024;

/// The reason why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command line selects the API by its URL, so Kubernetes is not reached.
    #[error("the {0} runs as a Job in Kubernetes, not through the API: do not set --server or ORDERS_SERVER")]
    ServerOption(&'static str),
    /// Kubernetes cannot be reached.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// There is no such program in the namespace.
    #[error(
        "there is no {name} in namespace {namespace}. Give the namespace of the release with -n (`kubectl get cronjobs -A -l {labels}` shows \
         it); its value {value} must be set", name = program.name, labels = program.labels, value = program.required_value
    )]
    NoCronJob {
        /// The namespace.
        namespace: String,
        /// The program.
        program: Program,
    },
    /// There are several releases in the namespace.
    #[error("namespace {namespace} has several CronJobs of the {name}: choose one with --cronjob ({names})")]
    SeveralCronJobs {
        /// The name of the program.
        name: &'static str,
        /// The namespace.
        namespace: String,
        /// The names of the CronJobs.
        names: String,
    },
    /// The CronJob that was named is that of another program.
    #[error("cronjob {cron_job} is not that of the {name}: it has no container named {container}", name = program.name, container = program.container)]
    OtherProgram {
        /// The name of the CronJob.
        cron_job: String,
        /// The program.
        program: Program,
    },
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
    #[error("the {name} has no result: {reason}")]
    NoResult {
        /// The name of the program.
        name: &'static str,
        /// The reason that Kubernetes reports.
        reason: String,
    },
    /// The Job did not end in time.
    #[error("the {name} did not end within {} seconds: {state}", timeout.as_secs())]
    TimedOut {
        /// The name of the program.
        name: &'static str,
        /// How long the command waited.
        timeout: Duration,
        /// The last state of the run.
        state: String,
    },
    /// The user no longer wants to wait.
    #[error("interrupted")]
    Interrupted,
}

/// Which CronJob to run, and how long to wait.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions<'a> {
    /// The name of the CronJob; by default, the only one of the program in the namespace.
    pub cron_job: Option<&'a str>,
    /// How long to wait for the end.
    pub timeout: Duration,
}

/// Runs the program with this change of its container, and prints its report. Returns whether it exited with 0.
/// The Job is deleted, also after an error or Ctrl-C.
///
/// # Errors
/// [`RunError`], if it has no report.
pub async fn run(access: &AccessArgs, program: Program, change: &Change, options: RunOptions<'_>) -> Result<bool, RunError> {
    if access.server.is_some() {
        return Err(RunError::ServerOption(program.name));
    }
    let (client, namespace) = connect(access).await?;
    let cron_job = find_cron_job(&client, &namespace, program, options.cron_job).await?;
    let job = manifest::build(&cron_job, program.container, change)
        .ok_or_else(|| RunError::OtherProgram { cron_job: cron_job.name_any(), program })?;
    // Catch signals before there is a Job, so that the Job is deleted in any case.
    let mut interrupt = Interrupt::catch()?;
    let run = JobRun::start(client, &namespace, program, &job).await?;
    eprintln!("waiting for job {} in namespace {namespace} to end", run.name);
    let result = tokio::select! {
        result = run.print_report(options.timeout) => result,
        () = interrupt.wait() => Err(RunError::Interrupted),
    };
    if let Err(error) = run.delete().await {
        eprintln!("warning: {error}");
    }
    result
}

async fn find_cron_job(client: &Client, namespace: &str, program: Program, name: Option<&str>) -> Result<CronJob, RunError> {
    let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), namespace);
    match name {
        Some(name) => send(&format!("cronjob {name} cannot be read"), cron_jobs.get(name)).await,
        None => {
            let failure = format!("the cronjobs of namespace {namespace} cannot be listed");
            let found = send(&failure, cron_jobs.list(&ListParams::default().labels(program.labels))).await?;
            select_cron_job(namespace, program, found.items)
        }
    }
}

fn select_cron_job(namespace: &str, program: Program, found: Vec<CronJob>) -> Result<CronJob, RunError> {
    let namespace = namespace.to_owned();
    select_only(found).map_err(|names| match names {
        None => RunError::NoCronJob { namespace, program },
        Some(names) => RunError::SeveralCronJobs { name: program.name, namespace, names },
    })
}

/// A run that was started.
struct JobRun {
    program: Program,
    jobs: Api<Job>,
    pods: Api<Pod>,
    /// The name of its Job.
    name: String,
}

impl JobRun {
    async fn start(client: Client, namespace: &str, program: Program, job: &Job) -> Result<Self, RunError> {
        let (jobs, pods) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
        let failure = format!("no job can be created in namespace {namespace}");
        let name = send(&failure, jobs.create(&PostParams::default(), job)).await?.name_any();
        Ok(JobRun { program, jobs, pods, name })
    }

    /// Waits until the program ends and prints its report. Returns whether it exited with 0.
    async fn print_report(&self, timeout: Duration) -> Result<bool, RunError> {
        match self.wait_for_end(timeout).await? {
            RunResult::Reported { pod, is_success } => {
                print_text(&self.read_log(&pod).await?);
                Ok(is_success)
            }
            RunResult::Failed { reason, pod } => {
                // The log is then not a report, so it is printed to standard error.
                if let Some(pod) = pod {
                    eprint!("{}", self.read_log(&pod).await.unwrap_or_else(|error| format!("{error}\n")));
                }
                Err(RunError::NoResult { name: self.program.name, reason })
            }
        }
    }

    async fn wait_for_end(&self, timeout: Duration) -> Result<RunResult, RunError> {
        let (deadline, mut printed) = (Instant::now() + timeout, BTreeSet::new());
        loop {
            let (description, is_problem) = match self.read_state().await {
                Ok(State::Ended(result)) => return Ok(result),
                Ok(State::Waiting { description, is_problem }) => (description, is_problem),
                Err(error @ RunError::Kubernetes { is_refused: false, .. }) => (error.to_string(), true),
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(RunError::TimedOut { name: self.program.name, timeout, state: description });
            }
            // Print each problem once: some problems alternate.
            if is_problem && printed.insert(description.clone()) {
                eprintln!("{description}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn read_state(&self) -> Result<State, RunError> {
        // Read the Job first: when it has failed, its pods have ended.
        let job = send(&format!("job {} cannot be read", self.name), self.jobs.get_opt(&self.name)).await?;
        let job = job.ok_or_else(|| RunError::JobDeleted(self.name.clone()))?;
        let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", self.name));
        let pods = send(&format!("the pods of job {} cannot be listed", self.name), self.pods.list(&selector)).await?;
        Ok(state::derive(&job, &pods.items, self.program.container))
    }

    async fn read_log(&self, pod: &str) -> Result<String, RunError> {
        let params =
            LogParams { container: Some(self.program.container.to_owned()), limit_bytes: Some(MAX_LOG), ..LogParams::default() };
        send(&format!("the log of pod {pod} cannot be read"), self.pods.logs(pod, &params)).await
    }

    async fn delete(&self) -> Result<(), RunError> {
        let failure = format!("job {} cannot be deleted", self.name);
        send(&failure, self.jobs.delete(&self.name, &DeleteParams::background())).await.map(drop)
    }
}

/// Sends one request to Kubernetes. `failure` describes the request in the error.
async fn send<T>(failure: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, RunError> {
    let to_error = |error: String, is_refused| RunError::Kubernetes { failure: failure.to_owned(), error, is_refused };
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
    use crate::audit::AUDIT;

    fn named(name: &str) -> CronJob {
        CronJob { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..CronJob::default() }
    }

    #[test]
    fn the_error_without_a_cron_job_says_what_to_do_and_with_several_lists_them() {
        let select = |found| select_cron_job("shop", AUDIT, found);
        assert_eq!(select(vec![named("orders-audit")]).unwrap().name_any(), "orders-audit");
        let none = select(Vec::new()).unwrap_err().to_string();
        assert!(none.contains("namespace shop. Give the namespace of the release with -n"), "{none}");
        let several = select(vec![named("a"), named("b"), named("c")]).unwrap_err().to_string();
        assert!(several.contains("--cronjob (a, b, c)"), "{several}");
    }

    #[tokio::test]
    async fn the_server_option_is_refused_before_any_request() {
        let access = AccessArgs { server: Some("http://arch.homework".parse().unwrap()), ..AccessArgs::default() };
        let options = RunOptions { cron_job: None, timeout: REQUEST_TIMEOUT };
        let result = run(&access, AUDIT, &Change::default(), options).await;
        assert!(matches!(result, Err(RunError::ServerOption("audit"))), "{result:?}");
    }
}
