//! Bearer tokens, reviewed by kube-apiserver.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::PostParams;

use super::User;
use crate::cache::{Cache, KeyBuilder};
use crate::metrics::Metrics;
use crate::review::{Log, ReviewError, Reviews};

/// Answers kept at most.
const CAPACITY: usize = 4096;

/// Whose token it is; `None` for one that is nobody's.
type Answer = Result<Option<Arc<User>>, ReviewError>;

/// Asks whose a token is.
pub(crate) struct TokenReviews {
    cache: Cache<Answer>,
    asking: Arc<Asking>,
}

struct Asking {
    api: Api<TokenReview>,
    keep: Duration,
    reviews: Arc<Reviews>,
    metrics: Arc<Metrics>,
    log: Log,
}

impl TokenReviews {
    /// Asks through `client` and keeps each answer for so long.
    pub(crate) fn new(
        client: kube::Client,
        keep: Duration,
        reviews: Arc<Reviews>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cache: Cache::new(CAPACITY),
            asking: Arc::new(Asking {
                api: Api::all(client),
                keep,
                reviews,
                metrics,
                log: Log::new("TokenReview"),
            }),
        }
    }

    /// Whose `token` is.
    pub(crate) async fn review(&self, token: &str) -> Answer {
        let mut key = KeyBuilder::default();
        key.field(token);
        let (asking, token) = (Arc::clone(&self.asking), token.to_owned());
        let ask = || async move {
            let answer = asking.ask(token).await;
            asking.log.outcome(&answer);
            asking.metrics.token_review(answer.is_ok());
            let keep = if answer.is_ok() {
                asking.keep
            } else {
                Duration::ZERO
            };
            (answer, keep)
        };
        self.cache.get(key.build(), ask).await
    }
}

impl Asking {
    async fn ask(&self, token: String) -> Answer {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let answer = self.reviews.ask(|| self.api.create(&params, &review)).await?;
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
