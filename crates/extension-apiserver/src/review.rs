//! Asking kube-apiserver for its judgement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time for kube-apiserver to answer a review.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReviewError {
    /// kube-apiserver refused to answer.
    #[error("kube-apiserver answered {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its message.
        message: String,
    },
    /// kube-apiserver could not be asked.
    #[error("kube-apiserver could not be asked: {0}")]
    Failed(String),
    /// kube-apiserver took too long.
    #[error("kube-apiserver did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The answer holds no judgement.
    #[error("kube-apiserver's answer has no status")]
    Empty,
}

impl From<kube::Error> for ReviewError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                code: status.code,
                message: status.message,
            },
            error => Self::Failed(crate::error_chain(&error)),
        }
    }
}

/// The answer to a review, if it comes in time.
pub(crate) async fn in_time<T>(
    review: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ReviewError> {
    match tokio::time::timeout(TIMEOUT, review).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ReviewError::TimedOut),
    }
}

/// Logs when reviews begin to fail and when they work again, not each one.
#[derive(Debug)]
pub(crate) struct Log {
    kind: &'static str,
    failing: AtomicBool,
}

impl Log {
    /// For reviews of that kind.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            failing: AtomicBool::new(false),
        }
    }

    /// A review was answered, or not.
    pub(crate) fn outcome<T>(&self, answer: &Result<T, ReviewError>) {
        let kind = self.kind;
        let was_failing = self.failing.swap(answer.is_err(), Ordering::Relaxed);
        match answer {
            Err(error @ ReviewError::Refused { code: 403, .. }) if !was_failing => tracing::error!(
                %error,
                "may not create a {kind}: bind this ServiceAccount to ClusterRole system:auth-delegator"
            ),
            Err(error) if !was_failing => tracing::warn!(%error, "a {kind} failed, and others may"),
            Ok(_) if was_failing => tracing::info!("a {kind} was answered again"),
            _ => {}
        }
    }
}
