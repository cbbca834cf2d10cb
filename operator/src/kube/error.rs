//! Why the Kubernetes API did not do what it was asked for.

/// A call to the Kubernetes API that failed. Whether it had its effect is not known.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// It refused or failed.
    #[error("Kubernetes API: {0}")]
    Api(#[from] kube::Error),
    /// It did not answer within [`CALL_TIMEOUT`](super::CALL_TIMEOUT).
    #[error("the Kubernetes API did not answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

impl KubeError {
    /// Whether another client changed the object first (409). The watch brings the new version.
    pub fn is_conflict(&self) -> bool {
        matches!(self, KubeError::Api(kube::Error::Api(status)) if status.is_conflict())
    }
}
