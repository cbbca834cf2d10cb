//! The error of a call to the Kubernetes API.

/// A call to the Kubernetes API failed. It is not known whether the call had its effect.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The API server refused the call, or the call failed.
    #[error("Kubernetes API: {0}")]
    Api(#[from] kube::Error),
    /// The API server did not respond within [`CALL_TIMEOUT`](super::CALL_TIMEOUT).
    #[error("the Kubernetes API did not respond in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

impl KubeError {
    /// Whether another client changed the object first (409). The watch brings the new version.
    pub fn is_conflict(&self) -> bool {
        matches!(self, KubeError::Api(kube::Error::Api(status)) if status.is_conflict())
    }
}
