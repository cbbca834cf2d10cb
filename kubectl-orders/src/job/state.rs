//! Derives the state of a run from the states of its Job and of its pods.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerState, ContainerStateTerminated, Pod},
};
use kube::ResourceExt;

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The program has not ended.
    Waiting {
        /// A description of the current state.
        description: String,
        /// Whether there is a problem that the user should know of.
        is_problem: bool,
    },
    /// The program has ended.
    Ended(RunResult),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// The program printed its report.
    Reported {
        /// The pod whose log is the report.
        pod: String,
        /// Whether it exited with 0. With 1, the report says what is wrong.
        is_success: bool,
    },
    /// There is no report.
    Failed {
        /// The reason that Kubernetes reports.
        reason: String,
        /// The pod whose log may contain more information.
        pod: Option<String>,
    },
}

/// Returns the state of this Job's container with this name. The pods must not have been read before the Job.
pub fn derive(job: &Job, pods: &[Pod], container: &str) -> State {
    let mut pods: Vec<&Pod> = pods.iter().collect();
    pods.sort_by_key(|pod| pod.creation_timestamp());
    // The pods come first: the condition of the Job follows later, and may be that of its time
    // limit.
    for pod in &pods {
        if let Some(code @ (0 | 1)) = terminated(pod, container).map(|terminated| terminated.exit_code) {
            return State::Ended(RunResult::Reported { pod: pod.name_any(), is_success: code == 0 });
        }
    }
    match end_reason(job) {
        Some(reason) => {
            let pod = pods.iter().rev().find(|pod| terminated(pod, container).is_some()).map(|pod| pod.name_any());
            State::Ended(RunResult::Failed { reason, pod })
        }
        None => pods
            .last()
            .map_or_else(|| in_progress("it has no pod yet; `kubectl get events` may show why"), |pod| pod_state(pod, container)),
    }
}

/// The reason why the Job ended, if it has ended.
fn end_reason(job: &Job) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let end =
        conditions.iter().find(|condition| condition.status == "True" && ["Complete", "Failed"].contains(&&*condition.type_))?;
    Some(match end.type_.as_str() {
        // A complete Job does not name the pod that has the report.
        "Complete" => "its pod was deleted".to_owned(),
        _ => format_reason(end.reason.as_deref(), end.message.as_deref()),
    })
}

/// The state of a run that waits for its newest pod.
fn pod_state(pod: &Pod, container: &str) -> State {
    let status = pod.status.clone().unwrap_or_default();
    if let Some(terminated) = terminated(pod, container) {
        let reason =
            terminated.reason.filter(|reason| reason != "Error").map(|reason| format!(" ({reason})")).unwrap_or_default();
        return problem(format!("its pod ended with exit code {}{reason}; it may be retried", terminated.exit_code));
    }
    if status.phase.as_deref() == Some("Failed") {
        let reason = format_reason(status.reason.as_deref(), status.message.as_deref());
        return problem(format!("its pod failed: {reason}; it may be retried"));
    }
    let unscheduled =
        status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let reason = format_reason(condition.reason.as_deref(), condition.message.as_deref());
        return problem(format!("its pod cannot be scheduled: {reason}"));
    }
    match container_state(pod, container) {
        Some(ContainerState { running: Some(_), .. }) => in_progress("it is running"),
        Some(ContainerState { waiting: Some(waiting), .. }) if !is_startup_reason(waiting.reason.as_deref()) => problem(format!(
            "its container cannot be started: {}",
            format_reason(waiting.reason.as_deref(), waiting.message.as_deref())
        )),
        _ => in_progress("its pod has not started; `kubectl get events` may show why"),
    }
}

/// Whether a container that waits for this reason starts without intervention.
fn is_startup_reason(reason: Option<&str>) -> bool {
    matches!(reason, None | Some("ContainerCreating" | "PodInitializing"))
}

fn container_state(pod: &Pod, container: &str) -> Option<ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    statuses.iter().find(|status| status.name == container)?.state.clone()
}

fn terminated(pod: &Pod, container: &str) -> Option<ContainerStateTerminated> {
    container_state(pod, container)?.terminated
}

fn format_reason(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason.filter(|text| !text.is_empty()), message.filter(|text| !text.is_empty())) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (reason, message) => reason.or(message).unwrap_or("no reason is given").to_owned(),
    }
}

fn in_progress(description: &str) -> State {
    State::Waiting { description: description.to_owned(), is_problem: false }
}

fn problem(description: String) -> State {
    State::Waiting { description, is_problem: true }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(conditions: Value) -> Job {
        serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap()
    }

    fn running() -> Job {
        job(json!([]))
    }

    fn failed() -> Job {
        job(json!([
            {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "soon"},
            {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the limit"}]))
    }

    /// A pod that was created in this second.
    fn pod(name: &str, second: u8, status: Value) -> Pod {
        let created = format!("2026-05-07T12:00:{second:02}Z");
        serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created}, "status": status})).unwrap()
    }

    fn container_with(state: Value) -> Value {
        json!({"containerStatuses": [
            {"name": "sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "audit", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    fn exited(code: i32) -> Value {
        container_with(json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }}}))
    }

    #[track_caller]
    fn assert_waits(pods: &[Pod], expected_problem: bool, words: &str) {
        match derive(&running(), pods, "audit") {
            State::Waiting { description, is_problem } if is_problem == expected_problem => {
                assert!(description.contains(words), "{description}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_that_ended_with_a_report_says_whether_it_succeeded() {
        let reported = |name: &str, is_success| State::Ended(RunResult::Reported { pod: name.to_owned(), is_success });
        assert_eq!(derive(&running(), &[pod("a", 0, exited(0))], "audit"), reported("a", true));
        assert_eq!(derive(&running(), &[pod("a", 0, exited(1))], "audit"), reported("a", false));
        // An earlier attempt had no report, and the Job may already have the condition Failed.
        assert_eq!(derive(&failed(), &[pod("a", 0, exited(2)), pod("b", 9, exited(1))], "audit"), reported("b", false));
    }

    #[test]
    fn a_run_without_a_report_may_be_retried_and_fails_with_its_job() {
        assert_waits(&[pod("a", 0, exited(2))], true, "exit code 2; it may be retried");
        let killed = container_with(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        assert_waits(&[pod("a", 0, killed)], true, "exit code 137 (OOMKilled)");
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_waits(&[pod("a", 0, evicted)], true, "its pod failed: Evicted: The node was low");
        let reason = "BackoffLimitExceeded: Job has reached the limit".to_owned();
        let pods = [pod("b", 9, exited(2)), pod("a", 0, exited(2))];
        assert_eq!(
            derive(&failed(), &pods, "audit"),
            State::Ended(RunResult::Failed { reason: reason.clone(), pod: Some("b".to_owned()) })
        );
        assert_eq!(derive(&failed(), &[], "audit"), State::Ended(RunResult::Failed { reason, pod: None }));
    }

    #[test]
    fn a_job_that_is_complete_without_a_report_is_no_success() {
        let complete = job(json!([{"type": "Complete", "status": "True"}]));
        assert_eq!(
            derive(&complete, &[], "audit"),
            State::Ended(RunResult::Failed { reason: "its pod was deleted".to_owned(), pod: None })
        );
    }

    #[test]
    fn a_pod_that_cannot_start_is_a_problem() {
        let message = "0/1 nodes are available: 1 Insufficient memory.";
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
        let unschedulable = json!({"phase": "Pending", "conditions": [condition]});
        assert_waits(&[pod("a", 0, unschedulable)], true, "cannot be scheduled: Unschedulable: 0/1 nodes");
        let no_image = container_with(
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"nope:0.1.0\""}}),
        );
        assert_waits(&[pod("a", 0, no_image)], true, "cannot be started: ImagePullBackOff: Back-off pulling image");
        let no_secret = container_with(json!({"waiting": {"reason": "CreateContainerConfigError"}}));
        assert_waits(&[pod("a", 0, no_secret)], true, "cannot be started: CreateContainerConfigError");
    }

    #[test]
    fn a_pod_that_is_starting_or_running_is_no_problem() {
        assert_waits(&[], false, "has no pod yet");
        assert_waits(&[pod("a", 0, json!({}))], false, "has not started");
        assert_waits(
            &[pod("a", 0, container_with(json!({"waiting": {"reason": "ContainerCreating"}})))],
            false,
            "has not started",
        );
        assert_waits(&[pod("a", 0, container_with(json!({"running": {}})))], false, "is running");
        // The newest pod counts.
        assert_waits(&[pod("b", 9, container_with(json!({"running": {}}))), pod("a", 0, exited(2))], false, "is running");
    }
}
