//! What is shown to kubelets: a bearer token, always at hand and renewed ahead of its end.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use contract::report::{ErrorClass, NodeError};
use http::HeaderValue;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// Life that is asked for. Between the shortest that kube-apiserver gives (10 min) and what a stolen token should
/// be good for.
const LIFE_SECONDS: i64 = 1800;
/// How often a mounted token is read again: kubelet renews it at 80 % of an hour or so.
const READ_AGAIN: Duration = Duration::from_mins(1);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// A token younger than this is not replaced because a kubelet refuses it: every kubelet may refuse every one.
const YOUNG: Duration = Duration::from_secs(20);
/// Longest time for kube-apiserver to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a scrape waits for a first or a renewed token.
const WAIT: Duration = Duration::from_secs(5);

/// Where tokens come from.
#[derive(Clone)]
pub enum TokenSource {
    /// Requested for a ServiceAccount.
    Request {
        /// The namespace's ServiceAccounts.
        api: Box<Api<ServiceAccount>>,
        /// Name of the one.
        name: String,
    },
    /// Mounted.
    File(PathBuf),
    /// Given once, as in a kubeconfig.
    Fixed(HeaderValue),
}

/// A token, as a header's value.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    issued: Instant,
    /// When it ends; `None` when nobody knows.
    ends: Option<Instant>,
}

impl Token {
    /// Value of the header `authorization`, marked as sensitive.
    #[must_use]
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// The token of this moment.
#[derive(Clone)]
pub struct Tokens {
    current: watch::Receiver<Option<Result<Token, Arc<str>>>>,
    renew: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error("failed to request a token of ServiceAccount {name}: {reason}")]
    Request { name: String, reason: String },
    #[error("failed to read the token from {path:?}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the token of {0} is no value of an HTTP header")]
    Unusable(String),
}

impl TokenSource {
    async fn issue(&self) -> Result<Token, IssueError> {
        match self {
            Self::Request { api, name } => request(api, name).await,
            Self::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                let text = read.map_err(|source| IssueError::Read {
                    path: path.clone(),
                    source,
                })?;
                let header = bearer(&text).ok_or_else(|| IssueError::Unusable(path.display().to_string()))?;
                Ok(Token {
                    header,
                    issued: Instant::now(),
                    ends: None,
                })
            }
            Self::Fixed(header) => Ok(Token {
                header: header.clone(),
                issued: Instant::now(),
                ends: None,
            }),
        }
    }

    /// When to get the next one.
    fn renew_after(&self, token: &Token) -> Duration {
        match (self, token.ends) {
            // Two thirds in, so that there is time for many tries before the end.
            (_, Some(ends)) => ends.duration_since(token.issued) * 2 / 3,
            (Self::Fixed(_), None) => Duration::from_hours(24),
            (_, None) => READ_AGAIN,
        }
    }
}

async fn request(api: &Api<ServiceAccount>, name: &str) -> Result<Token, IssueError> {
    let refuse = |reason: String| IssueError::Request {
        name: name.to_owned(),
        reason,
    };
    let wanted = TokenRequest {
        // No audience: the one of kube-apiserver itself, which is what a kubelet's TokenReview asks for.
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(LIFE_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let issued = Instant::now();
    let params = PostParams::default();
    let answer = timeout(PATIENCE, api.create_token_request(name, &params, &wanted)).await;
    let answer = answer.map_err(|_| refuse("kube-apiserver did not answer in time".to_owned()))?;
    let answer = answer.map_err(|error| {
        refuse(match error {
            kube::Error::Api(status) => format!("{} {}", status.code, status.message),
            other => other.to_string(),
        })
    })?;
    let token = answer.status.and_then(|status| status.token);
    let token = token.ok_or_else(|| refuse("the answer holds none".to_owned()))?;
    let header = bearer(&token).ok_or_else(|| IssueError::Unusable(name.to_owned()))?;
    // Counted from before the request on our own clock: the server's may differ.
    let seconds = answer
        .spec
        .and_then(|spec| spec.expiration_seconds)
        .unwrap_or(LIFE_SECONDS);
    let life = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    Ok(Token {
        header,
        issued,
        ends: Some(issued + life),
    })
}

/// `Bearer TOKEN`, marked so that it is never printed.
#[must_use]
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let token = token.trim();
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.is_empty())?;
    header.set_sensitive(true);
    Some(header)
}

impl Tokens {
    /// Gets tokens from `source` for as long as somebody holds what is returned.
    #[must_use]
    pub fn start(source: TokenSource) -> Self {
        let (sender, current) = watch::channel(None);
        let renew = Arc::new(Notify::new());
        tokio::spawn(keep(source, sender, Arc::clone(&renew)));
        Self { current, renew }
    }

    /// The token of this moment; waits a little for the first one.
    pub async fn get(&self) -> Result<Token, NodeError> {
        let mut current = self.current.clone();
        let known = timeout(WAIT, current.wait_for(Option::is_some)).await;
        let problem = match known {
            Ok(Ok(known)) => match known.as_ref() {
                Some(Ok(token)) => return Ok(token.clone()),
                Some(Err(problem)) => problem.to_string(),
                None => "there is none yet".to_owned(),
            },
            _ => "kube-apiserver has not issued one yet".to_owned(),
        };
        Err(NodeError {
            class: ErrorClass::TokenUnavailable,
            message: problem,
        })
    }

    /// A kubelet does not know `refused`: gets a newer one if there is one, or can be one and `renew` allows it.
    pub async fn newer_than(&self, refused: &Token, renew: bool) -> Option<Token> {
        let mut current = self.current.clone();
        let is_newer = |known: &Option<Result<Token, Arc<str>>>| matches!(known, Some(Ok(token)) if token.issued > refused.issued);
        if !is_newer(&current.borrow()) {
            if !renew || refused.issued.elapsed() < YOUNG {
                return None;
            }
            self.renew.notify_one();
        }
        let known = timeout(WAIT, current.wait_for(is_newer)).await.ok()?.ok()?;
        known
            .as_ref()?
            .as_ref()
            .ok()
            .filter(|token| token.header != refused.header)
            .cloned()
    }
}

/// Keeps a token at hand. One that is renewed in vain stays in use until its end.
async fn keep(
    source: TokenSource,
    sender: watch::Sender<Option<Result<Token, Arc<str>>>>,
    renew: Arc<Notify>,
) {
    let mut failing = false;
    loop {
        let pause = match source.issue().await {
            Ok(token) => {
                if failing {
                    tracing::info!("there is a token for kubelets again");
                }
                failing = false;
                let pause = source.renew_after(&token);
                sender.send_replace(Some(Ok(token)));
                pause
            }
            Err(error) => {
                if !failing {
                    failing = true;
                    tracing::warn!(%error, "no new token for kubelets");
                }
                sender.send_if_modified(|known| {
                    let usable = matches!(known, Some(Ok(token)) if token.ends.is_none_or(|ends| ends > Instant::now()));
                    if !usable {
                        *known = Some(Err(error.to_string().into()));
                    }
                    !usable
                });
                RETRY
            }
        };
        tokio::select! {
            () = sender.closed() => return,
            () = renew.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { name, .. } => f
                .debug_struct("Request")
                .field("name", name)
                .finish_non_exhaustive(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Fixed(_) => f.write_str("Fixed"),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}
