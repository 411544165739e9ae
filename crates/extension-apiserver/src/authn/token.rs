//! Bearer tokens, reviewed by kube-apiserver.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::PostParams;

use super::User;
use crate::cache::{Cache, KeyBuilder};
use crate::metrics::Metrics;
use crate::review::{Log, ReviewError, in_time};

/// Answers kept at most.
const CAPACITY: usize = 4096;

/// Whose token it is; `None` for one that is nobody's.
type Answer = Result<Option<Arc<User>>, ReviewError>;

/// Asks whose a token is.
pub(crate) struct TokenReviews {
    api: Api<TokenReview>,
    cache: Cache<Answer>,
    keep: Duration,
    metrics: Arc<Metrics>,
    log: Log,
}

impl TokenReviews {
    /// Asks through `client` and keeps each answer for so long.
    pub(crate) fn new(client: kube::Client, keep: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            api: Api::all(client),
            cache: Cache::new(CAPACITY),
            keep,
            metrics,
            log: Log::new("TokenReview"),
        }
    }

    /// Whose `token` is.
    pub(crate) async fn review(&self, token: &str) -> Answer {
        let mut key = KeyBuilder::default();
        key.field(token);
        let ask = || async {
            let answer = self.ask(token).await;
            self.log.outcome(&answer);
            self.metrics.token_review(answer.is_ok());
            let keep = if answer.is_ok() { self.keep } else { Duration::ZERO };
            (answer, keep)
        };
        self.cache.get(key.build(), ask).await
    }

    async fn ask(&self, token: &str) -> Answer {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let answer = in_time(self.api.create(&PostParams::default(), &review)).await?;
        Ok(user(answer.status.ok_or(ReviewError::Empty)?).map(Arc::new))
    }
}

/// The user in an answer.
fn user(status: TokenReviewStatus) -> Option<User> {
    let user = status.user.filter(|_| status.authenticated == Some(true))?;
    Some(
        User {
            name: user.username.filter(|name| !name.is_empty())?,
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }
        .authenticated(),
    )
}
