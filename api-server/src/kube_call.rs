//! Calls to the Kubernetes API: their time limit, and the problems that report their failures.
//!
//! 503 means that nothing was done, so that anybody may repeat the request: meshes and proxies repeat a
//! POST that was answered 503 by themselves. 504 means that the outcome is unknown.

use std::time::Duration;

use axum::http::StatusCode;
use kube::core::Status;
use orders_service::Problem;

/// How long one call to the Kubernetes API may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call to the Kubernetes API failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Kubernetes refused the call, or did not reply.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// There was no reply in time.
    #[error("no reply from the Kubernetes API within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

/// The effect of a write that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// Kubernetes refuses the write: another attempt would fail as well. Nothing was done.
    Refused(Problem),
    /// Nothing was done, and another attempt may succeed.
    NothingDone,
    /// It is unknown whether the write had its effect.
    Unknown,
}

/// Makes a call within [`CALL_TIMEOUT`].
///
/// # Errors
/// [`CallError`].
pub async fn call<T>(calling: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, calling).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallError::Timeout),
    }
}

impl CallError {
    /// The status with which Kubernetes replied, if it replied.
    pub fn status(&self) -> Option<&Status> {
        match self {
            CallError::Kube(kube::Error::Api(status)) => Some(status),
            CallError::Kube(_) | CallError::Timeout => None,
        }
    }

    /// The effect of this write of an `object`, such as "order" or "customer", which failed.
    pub fn write_failure(&self, object: &str) -> WriteFailure {
        match self {
            CallError::Kube(kube::Error::Api(status)) => refusal(status, object),
            // The request was not sent.
            CallError::Kube(kube::Error::Service(error)) if is_connect_error(&**error) => WriteFailure::NothingDone,
            CallError::Kube(_) | CallError::Timeout => WriteFailure::Unknown,
        }
    }

    /// The problem of this write of an `object`, which failed. See [`write_problem`].
    pub fn write_problem(&self, object: &str, repeat: &str) -> Problem {
        write_problem(self.write_failure(object), object, self, repeat)
    }

    /// 503: the problem of a failed read.
    pub fn read_problem(&self) -> Problem {
        tracing::warn!(error = %self, "the Kubernetes API does not respond");
        Problem::unavailable("the order store does not respond; try again")
    }
}

/// The problem of a write of an `object` that ended with this failure. `repeat`: how the client learns
/// whether the write had its effect, if that is unknown.
pub fn write_problem(failure: WriteFailure, object: &str, error: &CallError, repeat: &str) -> Problem {
    match failure {
        WriteFailure::Refused(problem) => problem,
        WriteFailure::NothingDone => {
            tracing::warn!(%error, "the Kubernetes API cannot be used");
            Problem::unavailable(format!("the order store does not respond; the {object} was not written. Try again later"))
        }
        WriteFailure::Unknown => {
            tracing::warn!(%error, "the Kubernetes API does not respond");
            Problem::unknown(format!(
                "the order store does not respond; it is unknown whether the {object} was written. {repeat}"
            ))
        }
    }
}

fn refusal(status: &Status, object: &str) -> WriteFailure {
    let message = &status.message;
    let refused = |code| WriteFailure::Refused(Problem::new(code, format!("Kubernetes refused the {object}: {message}")));
    let has_field = status.details.iter().flat_map(|details| &details.causes).any(|cause| !cause.field.is_empty());
    match status.code {
        // An administrator can raise a quota, and orders that end make room.
        403 if message.contains("quota") => WriteFailure::Refused(Problem::unavailable(format!(
            "Kubernetes refused the {object}, and nothing was done: {message}"
        ))),
        // The role of this service is missing.
        403 if message.contains("is forbidden: User ") => WriteFailure::NothingDone,
        // The value of a field.
        422 if has_field => refused(StatusCode::UNPROCESSABLE_ENTITY),
        401 | 404 | 408 | 409 | 429 => WriteFailure::NothingDone,
        // A policy, a webhook, or a namespace that is being deleted.
        400..=499 => refused(StatusCode::FORBIDDEN),
        _ => WriteFailure::Unknown,
    }
}

/// Whether the connection was refused or could not be opened.
fn is_connect_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failure(code: u16, message: &str, causes: serde_json::Value) -> WriteFailure {
        let status = json!({"status": "Failure", "code": code, "message": message, "details": {"causes": causes}});
        let error = kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()));
        CallError::Kube(error).write_failure("order")
    }

    fn status(failure: WriteFailure) -> u16 {
        match failure {
            WriteFailure::Refused(problem) => problem.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_for_good_has_the_reason_of_kubernetes() {
        let policy = "orders is forbidden: ValidatingAdmissionPolicy 'p' denied request: too much";
        let refused = failure(422, policy, json!([{"message": "too much"}]));
        assert!(matches!(&refused, WriteFailure::Refused(problem) if problem.detail.ends_with(policy)), "{refused:?}");
        assert_eq!(status(refused), 403);
        assert_eq!(status(failure(400, "admission webhook denied the request", json!([]))), 403);
        assert_eq!(status(failure(403, "unable to create new content in namespace shop", json!([]))), 403);
        assert_eq!(status(failure(422, "spec.amount: Invalid value", json!([{"field": "spec.amount"}]))), 422);
    }

    #[test]
    fn a_quota_is_503_because_it_may_be_raised() {
        assert_eq!(status(failure(403, "exceeded quota: q, requested: count/orders.arch.homework=1", json!([]))), 503);
    }

    #[test]
    fn a_failure_is_unknown_unless_the_write_certainly_had_no_effect() {
        for code in [401, 404, 409, 429] {
            assert_eq!(failure(code, "", json!([])), WriteFailure::NothingDone, "{code}");
        }
        for code in [500, 502, 503, 504] {
            assert_eq!(failure(code, "", json!([])), WriteFailure::Unknown, "{code}");
        }
        assert_eq!(CallError::Timeout.write_failure("order"), WriteFailure::Unknown);
        let missing_role = "orders is forbidden: User \"system:serviceaccount:shop:x\" cannot create resource";
        assert_eq!(failure(403, missing_role, json!([])), WriteFailure::NothingDone);
    }
}
