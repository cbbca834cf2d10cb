//! Builds a Job from one of the release's CronJobs, as `kubectl create job --from` does.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::EnvVar,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{ResourceExt, api::ObjectMeta};

/// The changes of a run to the CronJob and its container.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Environment variables that it sets.
    pub env: Vec<(&'static str, &'static str)>,
    /// The arguments, in place of those of the CronJob.
    pub args: Option<Vec<String>>,
    /// How long the Job may take, in seconds, in place of that of the CronJob.
    pub deadline_seconds: Option<i64>,
}

/// The time to live of the finished Job. The chart keeps its Jobs for days. The command reads the
/// log of this Job and deletes it immediately; the TTL removes the Job if that did not happen. The
/// TTL is not zero, because the Job must exist until its log is read.
const TTL_SECONDS: i32 = 3600;

/// The annotation that records how a Job was created.
const INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";

/// Builds the Job, with these changes of its container. Returns `None` if the CronJob has no container with
/// this name.
pub fn build(cron_job: &CronJob, container: &str, change: &Change) -> Option<Job> {
    let template = cron_job.spec.job_template.clone();
    let (metadata, mut spec) = (template.metadata.unwrap_or_default(), template.spec?);
    spec.ttl_seconds_after_finished = Some(TTL_SECONDS);
    spec.active_deadline_seconds = change.deadline_seconds.or(spec.active_deadline_seconds);
    let containers = &mut spec.template.spec.as_mut()?.containers;
    let container = containers.iter_mut().find(|found| found.name == container)?;
    // The log must contain only the report.
    for (name, value) in change.env.iter().copied().chain([("RUST_LOG", "off")]) {
        let env = container.env.get_or_insert_default();
        env.retain(|variable| variable.name != name);
        env.push(EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None });
    }
    if let Some(args) = &change.args {
        container.args = Some(args.clone());
    }
    let mut annotations = BTreeMap::from([(INSTANTIATE.to_owned(), "manual".to_owned())]);
    annotations.extend(metadata.annotations.unwrap_or_default());
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", cron_job.name_any())),
        labels: metadata.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![owner_reference(cron_job)]),
        ..ObjectMeta::default()
    };
    Some(Job { metadata, spec: Some(spec), status: None })
}

/// The reference to the CronJob. It does not set `blockOwnerDeletion`, which may require a further
/// permission.
fn owner_reference(cron_job: &CronJob) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "CronJob".to_owned(),
        name: cron_job.name_any(),
        uid: cron_job.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron_job(container: &str) -> CronJob {
        let cron_job = json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "orders-audit", "namespace": "shop", "uid": "u-1", "labels": {"not": "the Job's"}},
            "spec": {"schedule": "@daily", "suspend": true, "jobTemplate": {
                "metadata": {"labels": {"app.kubernetes.io/component": "audit"}, "annotations": {"a": "b"}},
                "spec": {"backoffLimit": 3, "ttlSecondsAfterFinished": 0, "template": {"spec": {"containers": [
                    {"name": "sidecar", "env": [{"name": "OUTPUT", "value": "mine"}]},
                    {"name": container, "env": [{"name": "NAMESPACE", "value": "shop"}, {"name": "OUTPUT", "value": "text"}]}]}}}}}
        });
        serde_json::from_value(cron_job).unwrap()
    }

    fn json_output() -> Change {
        Change { env: vec![("OUTPUT", "json")], ..Change::default() }
    }

    #[test]
    fn the_arguments_may_be_replaced() {
        let change =
            Change { args: Some(vec!["replay".to_owned(), "7".to_owned()]), deadline_seconds: Some(90), ..Change::default() };
        let job = serde_json::to_value(build(&cron_job("dead-letters"), "dead-letters", &change).unwrap()).unwrap();
        assert_eq!(job["spec"]["template"]["spec"]["containers"][1]["args"], json!(["replay", "7"]));
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 90);
    }

    #[test]
    fn a_job_is_like_one_of_kubectl_create_job_from_the_cron_job() {
        let job = serde_json::to_value(build(&cron_job("audit"), "audit", &json_output()).unwrap()).unwrap();
        assert_eq!(
            job["metadata"],
            json!({
                "generateName": "orders-audit-",
                "labels": {"app.kubernetes.io/component": "audit"},
                "annotations": {"a": "b", "cronjob.kubernetes.io/instantiate": "manual"},
                "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "CronJob", "name": "orders-audit", "uid": "u-1", "controller": true}]
            })
        );
        assert_eq!(job["spec"]["backoffLimit"], 3);
    }

    #[test]
    fn the_report_has_the_requested_format_and_the_job_remains_until_it_is_read() {
        let job = serde_json::to_value(build(&cron_job("audit"), "audit", &json_output()).unwrap()).unwrap();
        let containers = &job["spec"]["template"]["spec"]["containers"];
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        assert_eq!(
            containers[1]["env"],
            Value::Array(vec![variable("NAMESPACE", "shop"), variable("OUTPUT", "json"), variable("RUST_LOG", "off")])
        );
        assert_eq!(containers[0]["env"], json!([variable("OUTPUT", "mine")]));
        assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 3600);
    }

    #[test]
    fn a_cron_job_without_the_container_is_refused() {
        assert!(build(&cron_job("backup"), "audit", &Change::default()).is_none());
        assert!(build(&CronJob::default(), "audit", &Change::default()).is_none());
    }
}
