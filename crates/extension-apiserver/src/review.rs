//! Asking kube-apiserver for its judgement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

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
    /// Too many other reviews are being asked.
    #[error("more than {AT_ONCE} reviews at once, or {} a second, are wanted of kube-apiserver", RATE.0)]
    Busy,
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

/// Reviews asked at once at most.
const AT_ONCE: usize = 64;
/// Reviews asked a second in the long run, and at once after a quiet time: what k8s.io/apiserver allows its delegating
/// clients (`DelegatingAuthenticationOptions`).
const RATE: (u32, u32) = (200, 400);
/// How long a review waits for its turn.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pauses before a review that failed is asked again: as k8s.io/apiserver's `DefaultRetryBackoff`.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_millis(1125),
    Duration::from_millis(1687),
];

/// The turn that reviews of all kinds take, so that clients cannot make this server a burden to kube-apiserver.
#[derive(Debug)]
pub(crate) struct Reviews {
    places: Semaphore,
    /// When the next one would be due if they came evenly; ahead of now by what was asked at once.
    due: Mutex<Option<Instant>>,
}

impl Default for Reviews {
    fn default() -> Self {
        Self {
            places: Semaphore::new(AT_ONCE),
            due: Mutex::default(),
        }
    }
}

impl Reviews {
    /// Asks, and asks again what failed for a reason that may pass.
    pub(crate) async fn ask<T, F>(&self, review: impl Fn() -> F) -> Result<T, ReviewError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let _place = tokio::time::timeout(PATIENCE, self.turn())
            .await
            .ok()
            .flatten()
            .ok_or(ReviewError::Busy)?;
        in_time(async {
            for pause in PAUSES {
                match review().await {
                    Err(error) if may_pass(&error) => tokio::time::sleep(pause).await,
                    answer => return answer,
                }
            }
            review().await
        })
        .await
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.places.acquire().await.ok()?;
        let wait = self.wait(Instant::now())?;
        tokio::time::sleep(wait).await;
        Some(place)
    }

    /// How long to wait for the rate's sake; `None` if that is too long.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let each = Duration::from_secs(1) / RATE.0;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = due.map_or(now, |due| due.max(now));
        let wait = next.duration_since(now).saturating_sub(each * RATE.1);
        if wait >= PATIENCE {
            return None;
        }
        *due = Some(next + each);
        Some(wait)
    }
}

/// Whether asking again may help: kube-apiserver was not reached, or is not well.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// kube-apiserver's answer, if it comes in time.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use kube::core::Status;

    use super::*;

    fn refusal(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure("no", "").with_code(code)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_asked_again_for_a_while() {
        let reviews = Reviews::default();
        for (code, failures, calls, well) in [
            (500, 2, 3, true),
            (502, 4, 5, true),
            (503, 99, 5, false),
            (403, 99, 1, false),
            (404, 99, 1, false),
        ] {
            let (begun, asked) = (Instant::now(), AtomicUsize::new(0));
            let answer = reviews
                .ask(|| async {
                    let earlier = asked.fetch_add(1, Ordering::Relaxed);
                    if earlier < failures {
                        Err(refusal(code))
                    } else {
                        Ok(())
                    }
                })
                .await;
            assert_eq!((asked.into_inner(), answer.is_ok()), (calls, well), "{code}");
            assert!(begun.elapsed() < TIMEOUT);
        }
        let never = reviews.ask(std::future::pending::<Result<(), _>>).await;
        assert_eq!(never, Err(ReviewError::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_asked_at_once_than_there_are_places() {
        let reviews = Reviews::default();
        let held = futures::future::join_all((0..AT_ONCE).map(|_| reviews.turn())).await;
        assert_eq!(reviews.ask(|| async { Ok(()) }).await, Err(ReviewError::Busy));
        drop(held);
        assert_eq!(reviews.ask(|| async { Ok(()) }).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_any_second() {
        let (reviews, begun) = (Reviews::default(), Instant::now());
        let mut asked = 0;
        let mut busy = 0;
        while begun.elapsed() < Duration::from_secs(10) {
            match reviews.wait(Instant::now()) {
                Some(wait) if wait.is_zero() => asked += 1,
                Some(_) => asked += 1,
                None => busy += 1,
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        // The burst, ten seconds of the rate, and what already waits for its turn.
        assert!((2400..=2601).contains(&asked), "{asked}");
        assert!(busy > 7000, "{busy}");
    }
}
