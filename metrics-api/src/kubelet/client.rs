//! Asking a kubelet: one request at a time on one kept connection a node.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use contract::{
    names::METRICS_API,
    report::{ErrorClass, NodeError, TlsState},
};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use rustls::crypto::CryptoProvider;
use tokio::{sync::watch, time::timeout};

pub use super::connection::ClientCertificate;
use super::{
    address::Endpoint,
    authority::Authority,
    connection::{Connection, Security, broken},
    error,
    records::Records,
    tls::{Presented, TlsMode},
    trust,
};
use crate::{
    decode::MAX_BODY,
    token::{Token, Tokens},
};

/// How old a record may be by which a new connection is judged. Not zero: after a start all nodes of a shard are
/// judged by one read.
const RECORD_AGE: Duration = Duration::from_secs(10);
/// How old a record may be by which an open connection stays trusted.
const RECORD_AGE_OPEN: Duration = Duration::from_mins(1);
/// Room for a first answer; the next ones have that of the last.
const BODY: usize = 16 * 1024;
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
    /// A client certificate.
    pub identity: Option<ClientCertificate>,
    /// Time for a whole scrape of one node, from dialling to the answer's last byte.
    pub timeout: Duration,
}

/// What was asked of one kubelet and is kept for the next time.
#[derive(Default)]
pub struct Kept {
    connection: Option<Connection>,
    last_body: usize,
    /// How the certificate was judged last.
    pub tls: TlsState,
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
            timeout,
        } = options;
        let version = concat!("/v", env!("CARGO_PKG_VERSION"));
        Self {
            security: Security {
                mode,
                provider,
                identity: identity.map(Arc::new),
            },
            authority,
            records,
            tokens,
            timeout,
            // Both parts are plain ASCII.
            user_agent: HeaderValue::try_from(format!("{METRICS_API}{version}"))
                .unwrap_or_else(|_| HeaderValue::from_static("metrics-api")),
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
    ) -> Result<Vec<u8>, NodeError> {
        // Whatever is not put back is closed: a connection that failed, or timed out, is in no known state.
        let connection = kept.connection.take();
        let asked = timeout(self.timeout, self.ask(kept, connection, uid, endpoint, path)).await;
        let result = asked.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs_f64();
            Err(error(
                ErrorClass::Timeout,
                format!("no complete answer within {seconds} s"),
            ))
        });
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
    ) -> Result<Vec<u8>, NodeError> {
        let authority = self
            .authority
            .as_ref()
            .map(|authority| Arc::clone(&authority.borrow()));
        let open = connection.filter(|open| open.is_usable(endpoint, authority.as_ref()));
        if let Some(open) = open {
            // A kubelet may hang up between two requests, which shows only now: that alone is no failure.
            match self
                .exchange(kept, open, RECORD_AGE_OPEN, uid, endpoint, path)
                .await
            {
                Err(Broken::BeforeAnswer(_)) => {}
                other => return other.map_err(Broken::into_error),
            }
        }
        let fresh = Connection::open(&self.security, authority, endpoint).await?;
        self.exchange(kept, fresh, RECORD_AGE, uid, endpoint, path)
            .await
            .map_err(Broken::into_error)
    }

    /// One request and its answer, on a connection that is judged before anything is sent.
    async fn exchange(
        &self,
        kept: &mut Kept,
        mut connection: Connection,
        record_age: Duration,
        uid: &str,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<Vec<u8>, Broken> {
        self.settle(uid, &connection.presented, record_age).await?;
        kept.tls = trust::state(&connection.presented);
        let mut token = match &self.tokens {
            Some(tokens) => Some(tokens.get().await?),
            None => None,
        };
        loop {
            let request = self.request(endpoint, path, token.as_ref())?;
            let response = connection.send(request).await.map_err(Broken::BeforeAnswer)?;
            let status = response.status();
            if status == StatusCode::OK {
                let body = read(response.into_body(), kept.last_body).await?;
                kept.last_body = body.len();
                kept.connection = Some(connection);
                return Ok(body);
            }
            let newer = match (&self.tokens, &token) {
                (Some(tokens), Some(refused)) if status == StatusCode::UNAUTHORIZED => {
                    tokens.newer_than(refused).await
                }
                _ => None,
            };
            if newer.is_none() || discard(response.into_body()).await.is_err() {
                return Err(status_error(status, path).into());
            }
            token = newer;
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
        let refuse = |_| error(ErrorClass::NotFound, format!("{path:?} is no path of a URL"));
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

/// Reads a body of at most [`MAX_BODY`] bytes.
async fn read(mut body: Incoming, expected: usize) -> Result<Vec<u8>, NodeError> {
    let too_large = || {
        let limit = MAX_BODY / (1024 * 1024);
        error(
            ErrorClass::TooLarge,
            format!("the answer is larger than {limit} MiB"),
        )
    };
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    // A little more than last time, so that a pod more does not double the buffer.
    let mut read = Vec::with_capacity((expected + expected / 16).clamp(BODY, MAX_BODY));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| broken(&cause))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > MAX_BODY {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}

/// Reads the short body of a refusal to its end, so that the connection can be used again.
async fn discard(mut body: Incoming) -> Result<(), ()> {
    let mut left = BODY;
    while let Some(frame) = body.frame().await {
        let length = frame.map_err(|_| ())?.data_ref().map_or(0, Bytes::len);
        left = left.checked_sub(length).ok_or(())?;
    }
    Ok(())
}

fn status_error(status: StatusCode, path: &str) -> NodeError {
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
            format!("the kubelet answered 404: it does not serve {path}"),
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
