//! Derives the state of an audit from the states of its Job and of its pods.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerState, ContainerStateTerminated, Pod},
};
use kube::ResourceExt;

use super::job::CONTAINER;

/// The state of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The audit has not ended.
    Waiting {
        /// A description of the current state.
        what: String,
        /// Whether there is a problem that the user should know of.
        trouble: bool,
    },
    /// The audit has ended.
    Ended(Ended),
}

/// How an audit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The audit has a report.
    Reported {
        /// The pod whose log is the report.
        pod: String,
        /// Whether all checks passed.
        holds: bool,
    },
    /// The audit has no report.
    Failed {
        /// The reason that Kubernetes reports.
        why: String,
        /// The pod whose log may contain more information.
        pod: Option<String>,
    },
}

/// Returns the state of the audit of this Job. The pods must not have been read before the Job.
pub fn of(job: &Job, pods: &[Pod]) -> State {
    let mut pods: Vec<&Pod> = pods.iter().collect();
    pods.sort_by_key(|pod| pod.creation_timestamp());
    // The pods come first: the condition of the Job follows later, and may be that of its time
    // limit.
    for pod in &pods {
        if let Some(code @ (0 | 1)) = ended(pod).map(|ended| ended.exit_code) {
            return State::Ended(Ended::Reported { pod: pod.name_any(), holds: code == 0 });
        }
    }
    match verdict(job) {
        Some(why) => {
            let pod = pods.iter().rev().find(|pod| ended(pod).is_some()).map(|pod| pod.name_any());
            State::Ended(Ended::Failed { why, pod })
        }
        None => pods.last().map_or_else(|| calm("no pod was made for it; `kubectl get events` may tell why"), |pod| waiting(pod)),
    }
}

/// The reason why the Job ended, if it has ended.
fn verdict(job: &Job) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let ended =
        conditions.iter().find(|condition| condition.status == "True" && ["Complete", "Failed"].contains(&&*condition.type_))?;
    Some(match ended.type_.as_str() {
        // A complete Job does not name the pod that has the report.
        "Complete" => "its pod is gone".to_owned(),
        _ => reason(ended.reason.as_deref(), ended.message.as_deref()),
    })
}

/// The state of an audit that waits for its newest pod.
fn waiting(pod: &Pod) -> State {
    let status = pod.status.clone().unwrap_or_default();
    if let Some(ended) = ended(pod) {
        let reason = ended.reason.filter(|reason| reason != "Error").map(|reason| format!(" ({reason})")).unwrap_or_default();
        return trouble(format!("its pod ended with exit code {}{reason}; it may be tried again", ended.exit_code));
    }
    if status.phase.as_deref() == Some("Failed") {
        let why = reason(status.reason.as_deref(), status.message.as_deref());
        return trouble(format!("its pod failed: {why}; it may be tried again"));
    }
    let unscheduled = status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled" && it.status == "False");
    if let Some(condition) = unscheduled {
        let why = reason(condition.reason.as_deref(), condition.message.as_deref());
        return trouble(format!("its pod cannot be scheduled: {why}"));
    }
    match container(pod) {
        Some(ContainerState { running: Some(_), .. }) => calm("it is at work"),
        Some(ContainerState { waiting: Some(it), .. }) if !is_ordinary(it.reason.as_deref()) => {
            trouble(format!("its container cannot be started: {}", reason(it.reason.as_deref(), it.message.as_deref())))
        }
        _ => calm("its pod has not started; `kubectl get events` may tell why"),
    }
}

/// Whether a container that waits for this reason starts without intervention.
fn is_ordinary(reason: Option<&str>) -> bool {
    matches!(reason, None | Some("ContainerCreating" | "PodInitializing"))
}

fn container(pod: &Pod) -> Option<ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    statuses.iter().find(|status| status.name == CONTAINER)?.state.clone()
}

fn ended(pod: &Pod) -> Option<ContainerStateTerminated> {
    container(pod)?.terminated
}

fn reason(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason.filter(|text| !text.is_empty()), message.filter(|text| !text.is_empty())) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (one, other) => one.or(other).unwrap_or("no reason is given").to_owned(),
    }
}

fn calm(what: &str) -> State {
    State::Waiting { what: what.to_owned(), trouble: false }
}

fn trouble(what: String) -> State {
    State::Waiting { what, trouble: true }
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

    fn with(state: Value) -> Value {
        json!({"containerStatuses": [
            {"name": "sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "audit", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    fn exited(code: i32) -> Value {
        with(json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }}}))
    }

    #[track_caller]
    fn assert_waits(pods: &[Pod], is_trouble: bool, words: &str) {
        match of(&running(), pods) {
            State::Waiting { what, trouble } if trouble == is_trouble => assert!(what.contains(words), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_audit_that_ended_with_a_report_says_whether_everything_holds() {
        let reported = |name: &str, holds| State::Ended(Ended::Reported { pod: name.to_owned(), holds });
        assert_eq!(of(&running(), &[pod("a", 0, exited(0))]), reported("a", true));
        assert_eq!(of(&running(), &[pod("a", 0, exited(1))]), reported("a", false));
        // An earlier attempt had no report, and the Job may already have the condition Failed.
        assert_eq!(of(&failed(), &[pod("a", 0, exited(2)), pod("b", 9, exited(1))]), reported("b", false));
    }

    #[test]
    fn one_that_came_to_nothing_is_tried_again_and_then_no_verdict() {
        assert_waits(&[pod("a", 0, exited(2))], true, "exit code 2; it may be tried again");
        let killed = with(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        assert_waits(&[pod("a", 0, killed)], true, "exit code 137 (OOMKilled)");
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_waits(&[pod("a", 0, evicted)], true, "its pod failed: Evicted: The node was low");
        let why = "BackoffLimitExceeded: Job has reached the limit".to_owned();
        let pods = [pod("b", 9, exited(2)), pod("a", 0, exited(2))];
        assert_eq!(of(&failed(), &pods), State::Ended(Ended::Failed { why: why.clone(), pod: Some("b".to_owned()) }));
        assert_eq!(of(&failed(), &[]), State::Ended(Ended::Failed { why, pod: None }));
    }

    #[test]
    fn a_job_that_is_complete_without_a_report_is_no_success() {
        let complete = job(json!([{"type": "Complete", "status": "True"}]));
        assert_eq!(of(&complete, &[]), State::Ended(Ended::Failed { why: "its pod is gone".to_owned(), pod: None }));
    }

    #[test]
    fn what_keeps_it_from_starting_is_told() {
        let message = "0/1 nodes are available: 1 Insufficient memory.";
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
        let unschedulable = json!({"phase": "Pending", "conditions": [condition]});
        assert_waits(&[pod("a", 0, unschedulable)], true, "cannot be scheduled: Unschedulable: 0/1 nodes");
        let no_image =
            with(json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"nope:0.1.0\""}}));
        assert_waits(&[pod("a", 0, no_image)], true, "cannot be started: ImagePullBackOff: Back-off pulling image");
        let no_secret = with(json!({"waiting": {"reason": "CreateContainerConfigError"}}));
        assert_waits(&[pod("a", 0, no_secret)], true, "cannot be started: CreateContainerConfigError");
    }

    #[test]
    fn what_takes_its_time_is_no_trouble() {
        assert_waits(&[], false, "no pod was made");
        assert_waits(&[pod("a", 0, json!({}))], false, "has not started");
        assert_waits(&[pod("a", 0, with(json!({"waiting": {"reason": "ContainerCreating"}})))], false, "has not started");
        assert_waits(&[pod("a", 0, with(json!({"running": {}})))], false, "at work");
        // The newest pod counts.
        assert_waits(&[pod("b", 9, with(json!({"running": {}}))), pod("a", 0, exited(2))], false, "at work");
    }
}
