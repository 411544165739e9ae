//! Asking a kubelet: one request at a time on one kept connection a node.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use contract::{
    names::METRICS_API,
    report::{ErrorClass, NodeError, Source, TlsState},
};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use rustls::crypto::CryptoProvider;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

pub use super::answer::{Answer, SHARED_ROOM};
use super::{
    address::{Endpoint, Guard},
    answer::{Room, discard},
    authority::Authority,
    connection::{Awaited, Connection, Security},
    error,
    identity::ClientCertificate,
    records::Records,
    tls::{Presented, TlsMode},
    trust,
};
use crate::token::{Token, Tokens};

/// How old a record may be by which a new connection is judged. Not zero: after a start all nodes of a shard are
/// judged by one read.
const RECORD_AGE: Duration = Duration::from_secs(10);
/// How old a record may be by which an open connection stays trusted.
const RECORD_AGE_OPEN: Duration = Duration::from_mins(1);
/// A kept connection whose other end died silently is given up after this part of the timeout, so that there is time
/// for a new one.
const KEPT_PART: u32 = 3;
/// A kubelet that knows none of our tokens causes a new one no more often than this.
const RENEW_AGAIN: Duration = Duration::from_mins(10);
/// Path of the resource metrics.
pub const RESOURCE_METRICS: &str = "/metrics/resource";

/// What all kubelets are asked with.
#[derive(Debug)]
pub struct KubeletClient {
    security: Security,
    authority: Option<watch::Receiver<Arc<Authority>>>,
    records: Option<Arc<Records>>,
    tokens: Option<Tokens>,
    timeout: Duration,
    user_agent: HeaderValue,
    room: Room,
}

/// Settings of a [`KubeletClient`].
#[derive(Debug)]
pub struct KubeletOptions {
    /// How certificates are treated.
    pub mode: TlsMode,
    /// What they may chain to. Absent in mode `Insecure` only.
    pub authority: Option<watch::Receiver<Arc<Authority>>>,
    /// The records of mode `Auto`, absent in the others.
    pub records: Option<Arc<Records>>,
    /// What is shown to kubelets. Absent where a client certificate is used instead.
    pub tokens: Option<Tokens>,
    /// A client certificate, the newest that was read.
    pub identity: Option<watch::Receiver<Arc<ClientCertificate>>>,
    /// What is never dialled.
    pub guard: Guard,
    /// Bytes that the bodies of all answers together may take up, beside a little for each.
    pub room: usize,
    /// Time for a whole scrape of one node, from dialling to the answer's last byte.
    pub timeout: Duration,
}

/// What is remembered of a node's sources.
#[derive(Debug, Default)]
pub struct Remembered {
    /// What was asked for last.
    pub(crate) source: Source,
    /// Until when the Summary API stands in.
    pub(crate) until: Option<Instant>,
}

/// What was asked of one kubelet and is kept for the next time.
#[derive(Default)]
pub struct Kept {
    connection: Option<Connection>,
    awaited: Awaited,
    last_body: usize,
    renewed: Option<Instant>,
    /// How long the last answer was waited for.
    waited: Duration,
    pub(crate) sources: Remembered,
    /// How the certificate was judged last.
    pub tls: TlsState,
}

impl Kept {
    /// What was asked for last.
    #[must_use]
    pub fn source(&self) -> Source {
        self.sources.source
    }
}

impl KubeletClient {
    /// Uses the crypto provider of the process.
    #[must_use]
    pub fn new(options: KubeletOptions, provider: Arc<CryptoProvider>) -> Self {
        let KubeletOptions {
            mode,
            authority,
            records,
            tokens,
            identity,
            guard,
            room,
            timeout,
        } = options;
        let version = concat!("/v", env!("CARGO_PKG_VERSION"));
        Self {
            security: Security {
                mode,
                provider,
                identity,
                guard,
            },
            authority,
            records,
            tokens,
            timeout,
            // Both parts are plain ASCII.
            user_agent: HeaderValue::try_from(format!("{METRICS_API}{version}"))
                .unwrap_or_else(|_| HeaderValue::from_static("metrics-api")),
            room: Room::new(room),
        }
    }

    /// Gets what the kubelet of the node with this UID serves at `path`. Keeps the connection in `kept` if it can be
    /// used again.
    pub async fn get(
        &self,
        kept: &mut Kept,
        uid: &str,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<Answer, NodeError> {
        let deadline = Instant::now() + self.timeout;
        self.get_by(deadline, kept, uid, endpoint, path).await
    }

    /// Time for a whole scrape of one node.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same until `deadline`.
    pub(crate) async fn get_by(
        &self,
        deadline: Instant,
        kept: &mut Kept,
        uid: &str,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<Answer, NodeError> {
        // Whatever is not put back is closed: a connection that failed, or timed out, is in no known state.
        let connection = kept.connection.take();
        let asked = timeout_at(deadline, self.ask(kept, connection, uid, endpoint, path)).await;
        let result = asked.unwrap_or_else(|_| Err(kept.awaited.in_vain(self.timeout)));
        if let Err(error) = &result
            && is_refusal(error.class)
        {
            kept.tls = TlsState::Refused;
        }
        result
    }

    async fn ask(
        &self,
        kept: &mut Kept,
        connection: Option<Connection>,
        uid: &str,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<Answer, NodeError> {
        let authority = self
            .authority
            .as_ref()
            .map(|authority| Arc::clone(&authority.borrow()));
        let open = connection.filter(|open| open.is_usable(endpoint, authority.as_ref(), &self.security));
        if let Some(open) = open {
            // A kubelet may hang up between two requests, or its node vanish, which shows only now: that alone is no
            // failure.
            // A kubelet that is slow to answer is not taken for one that is gone.
            let patience = (self.timeout / KEPT_PART).max(kept.waited * 2);
            let about = (uid, endpoint, path);
            match self.exchange(kept, open, RECORD_AGE_OPEN, patience, about).await {
                Err(Broken::BeforeAnswer(_)) => {}
                other => return other.map_err(Broken::into_error),
            }
        }
        let fresh = Connection::open(&self.security, authority, endpoint, &mut kept.awaited).await?;
        // There is no other way to ask, so that only the deadline of the whole ends it.
        self.exchange(kept, fresh, RECORD_AGE, Duration::MAX, (uid, endpoint, path))
            .await
            .map_err(Broken::into_error)
    }

    /// One request and its answer, on a connection that is judged before anything is sent.
    async fn exchange(
        &self,
        kept: &mut Kept,
        mut connection: Connection,
        record_age: Duration,
        patience: Duration,
        (uid, endpoint, path): (&str, &Endpoint, &str),
    ) -> Result<Answer, Broken> {
        kept.awaited = Awaited::Answer;
        self.settle(uid, &connection.presented, record_age).await?;
        kept.tls = trust::state(&connection.presented);
        let mut token = match &self.tokens {
            Some(tokens) => Some(tokens.get().await?),
            None => None,
        };
        let mut refused = None;
        loop {
            let request = self.request(endpoint, path, token.as_ref())?;
            let sent = Instant::now();
            let response = timeout(patience, connection.send(request))
                .await
                .unwrap_or_else(|_| Err(error(ErrorClass::Timeout, "the kept connection is dead")))
                .map_err(|cause| match refused {
                    // A kubelet may hang up after a refusal, and the refusal is what matters: the next scrape shows it
                    // the newer token.
                    Some(status) => Broken::Final(status_error(status)),
                    None => Broken::BeforeAnswer(cause),
                })?;
            kept.waited = sent.elapsed();
            let status = response.status();
            if status == StatusCode::OK {
                let answer = self.room.read(response, kept.last_body).await?;
                kept.last_body = answer.body.len();
                kept.connection = Some(connection);
                return Ok(answer);
            }
            let newer = match (&self.tokens, &token) {
                (Some(tokens), Some(refused)) if status == StatusCode::UNAUTHORIZED => {
                    let renew = kept.renewed.is_none_or(|at| at.elapsed() >= RENEW_AGAIN);
                    let newer = tokens.newer_than(refused, renew).await;
                    if renew && newer.is_some() {
                        kept.renewed = Some(Instant::now());
                    }
                    newer
                }
                _ => None,
            };
            let drained = discard(response.into_body()).await.is_ok();
            match newer {
                Some(_) if drained => (token, refused) = (newer, Some(status)),
                _ => {
                    if drained {
                        kept.connection = Some(connection);
                    }
                    return Err(status_error(status).into());
                }
            }
        }
    }

    async fn settle(&self, uid: &str, presented: &Presented, max_age: Duration) -> Result<(), NodeError> {
        match &self.records {
            Some(records) => records.settle(uid, presented, max_age).await,
            None if matches!(presented, Presented::Foreign(_)) => Err(error(
                ErrorClass::TlsRecordUnavailable,
                "there is no place to record the kubelet's key in",
            )),
            None => Ok(()),
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        path: &str,
        token: Option<&Token>,
    ) -> Result<Request<Empty<Bytes>>, NodeError> {
        let mut request = Request::get(path)
            .header(header::HOST, endpoint.to_string())
            .header(header::USER_AGENT, &self.user_agent)
            .header(header::ACCEPT, "text/plain;version=0.0.4");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        // The path of a Node's own was looked at when it was read.
        let refuse = |_| error(ErrorClass::NotFound, "its path is no path of a URL");
        request.body(Empty::new()).map_err(refuse)
    }
}

/// A failure, and whether the kubelet can have seen the request as a whole.
enum Broken {
    /// Nothing of an answer arrived.
    BeforeAnswer(NodeError),
    /// Anything else.
    Final(NodeError),
}

impl Broken {
    fn into_error(self) -> NodeError {
        match self {
            Self::BeforeAnswer(error) | Self::Final(error) => error,
        }
    }
}

impl From<NodeError> for Broken {
    fn from(error: NodeError) -> Self {
        Self::Final(error)
    }
}

fn is_refusal(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::TlsUnknownAuthority
            | ErrorClass::TlsNameMismatch
            | ErrorClass::TlsExpired
            | ErrorClass::TlsInvalid
            | ErrorClass::TlsKeyChanged
            | ErrorClass::TlsDowngrade
            | ErrorClass::TlsRecordUnavailable
    )
}

fn status_error(status: StatusCode) -> NodeError {
    let code = status.as_u16();
    match code {
        401 => error(
            ErrorClass::Unauthorized,
            "the kubelet answered 401: it does not know our token or certificate",
        ),
        403 => error(
            ErrorClass::Forbidden,
            "the kubelet answered 403: our identity may not get nodes/metrics; see the ClusterRole of its ServiceAccount",
        ),
        404 => error(
            ErrorClass::NotFound,
            "the kubelet answered 404: it does not serve that path",
        ),
        _ => error(
            ErrorClass::BadStatus,
            format!("the kubelet answered {code}, expected 200"),
        ),
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("connected", &self.connection.is_some())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
