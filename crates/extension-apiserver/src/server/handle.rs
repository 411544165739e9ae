//! One request, from its headers to the beginning of its answer: limit, authenticate, authorize, answer.

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use prometheus_client::registry::Registry;
use rustls::pki_types::UnixTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics_page;
use crate::answer::{self, Api};
use crate::authn::peer::Peer;
use crate::authn::token::TokenReviews;
use crate::authn::watch::Config;
use crate::authn::{NoProxy, Presented, User, bearer_token};
use crate::authz::Authorizer;
use crate::body::Body;
use crate::cors::{self, CorsOrigins};
use crate::front_proxies::FrontProxies;
use crate::metrics::{Authenticated, GaugeGuard, Metrics};
use crate::options::Limits;
use crate::request::{RequestInfo, request_info};
use crate::review::ReviewError;
use crate::status::Status;

/// When a client that was one too many may come again.
const RETRY_AFTER_SECONDS: u32 = 1;
/// When a client may come again that found the server about to end; by then it is sent to another one.
const RETRY_AFTER_SHUTDOWN_SECONDS: u32 = 5;

/// Everything that requests are answered with.
pub(crate) struct Handler {
    pub(crate) api: Api,
    pub(crate) config: Arc<Config>,
    pub(crate) tokens: TokenReviews,
    pub(crate) authorizer: Authorizer,
    pub(crate) limits: Limits,
    pub(crate) slots: Arc<Semaphore>,
    /// Cancelled when clients are told to go elsewhere.
    pub(crate) sending_away: CancellationToken,
    pub(crate) count: AtomicU64,
    pub(crate) hashing: RandomState,
    pub(crate) strict_transport_security: Option<HeaderValue>,
    pub(crate) cors: Option<CorsOrigins>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    pub(crate) front_proxies: FrontProxies,
}

/// A place among the requests in flight, kept until the answer is sent.
pub(crate) type Slot = Option<(OwnedSemaphorePermit, GaugeGuard)>;

/// An answer, and what it keeps until it is sent.
pub(crate) struct Answered {
    pub(crate) response: Response<Body>,
    pub(crate) slot: Slot,
    /// Whether it goes on for as long as a watch may.
    pub(crate) lasting: bool,
    /// Whether its connection is to end after it.
    pub(crate) last: bool,
}

impl Handler {
    /// Answers one request of `peer`. Its body is read only if it says something: a client that is slow to send it would
    /// hold up its answer.
    pub(crate) async fn answer<B>(&self, peer: &Peer, parts: &request::Parts, body: B) -> Answered
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let begun = Instant::now();
        let info = request_info(&parts.method, &parts.uri);
        let origin = self.cors.as_ref().and_then(|cors| cors.origin(&parts.headers));
        let (mut response, slot) = if origin.is_some() && parts.method == Method::OPTIONS {
            // A browser asks before the user's request, and without their credentials.
            (cors::preflight(), None)
        } else {
            self.decide_in_time(peer, parts, &info, body).await
        };
        let code = response.status();
        if let Some(origin) = origin {
            cors::allow(origin, response.headers_mut());
        }
        if let Some(value) = &self.strict_transport_security {
            let headers = response.headers_mut();
            headers.insert(header::STRICT_TRANSPORT_SECURITY, value.clone());
        }
        if parts.method == Method::HEAD {
            let length = response.body().size_hint().exact();
            if let Some(length) = length.filter(|_| code != StatusCode::NOT_MODIFIED) {
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = Body::full(Bytes::new());
        }
        self.metrics.answered(&info, code, begun.elapsed());
        Answered {
            response,
            slot,
            lasting: info.verb == "watch" && code == StatusCode::OK,
            // After a 401 the client may have a better certificate, which takes a new connection.
            last: code == StatusCode::UNAUTHORIZED || self.is_sent_away(&info) || self.is_chosen(),
        }
    }

    async fn decide_in_time<B>(
        &self,
        peer: &Peer,
        parts: &request::Parts,
        info: &RequestInfo,
        body: B,
    ) -> (Response<Body>, Slot)
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let limit = self.limits.request_timeout;
        let decided = tokio::time::timeout(limit, self.decide(peer, parts, info, body)).await;
        let late = || Status::timeout("request did not complete within the allotted timeout");
        match decided.unwrap_or_else(|_| Err(late())) {
            Ok(answer) => answer,
            Err(status) => (answer::refuse(&status, &parts.headers), None),
        }
    }

    async fn decide<B>(
        &self,
        peer: &Peer,
        parts: &request::Parts,
        info: &RequestInfo,
        body: B,
    ) -> Result<(Response<Body>, Slot), Status>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let published = self.config.published();
        let presented = peer.present(&published, &parts.headers, UnixTime::now());
        let master = matches!(&presented, Presented::User(user) if user.is_master());
        // kube-apiserver's own checks and probes are answered under any load, and watches would hold their places for ever.
        let slot = if master || is_probe(info) || (info.verb == "watch" && !self.is_sent_away(info)) {
            None
        } else if self.is_sent_away(info) {
            return Err(Status::shutting_down(RETRY_AFTER_SHUTDOWN_SECONDS));
        } else {
            Some(self.slot()?)
        };
        let user = self.user(presented, peer, parts).await?;
        if let Some(name) = impersonation(&parts.headers) {
            let cause = format!(
                "header {name} is not understood here: impersonate through kube-apiserver, which checks the \
                 right to and passes on who is meant"
            );
            return Err(Status::forbidden("", "", "", &cause));
        }
        self.authorizer.authorize(&user, info).await?;
        let response = if info.path == "/metrics" {
            metrics_page::respond(&self.registry, parts)?
        } else {
            let body = if answer::wants_body(&self.api, info, parts) {
                read(body, self.limits.body_bytes).await?
            } else {
                drop(body);
                Bytes::new()
            };
            answer::respond(&self.api, info, parts, &body)
        };
        Ok((response, slot))
    }

    /// Whether the server only tells clients to go elsewhere. Probes and metrics are answered to the end.
    fn is_sent_away(&self, info: &RequestInfo) -> bool {
        self.sending_away.is_cancelled() && !is_probe(info) && info.path != "/metrics"
    }

    /// Whether this request is one of those, chosen at random, whose connection ends after it.
    fn is_chosen(&self) -> bool {
        let chance = self.limits.goaway_chance;
        if chance <= 0.0 {
            return false;
        }
        // Hashed with the process's own random keys, a count is as good as random.
        let random = self.hashing.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        let part = u32::try_from(random >> 32).unwrap_or(u32::MAX);
        f64::from(part) < chance * f64::from(u32::MAX)
    }

    fn slot(&self) -> Result<(OwnedSemaphorePermit, GaugeGuard), Status> {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.metrics.rejected();
            return Err(Status::too_many_requests(RETRY_AFTER_SECONDS));
        };
        Ok((permit, self.metrics.in_flight()))
    }

    /// Whether no request is in flight but those that are answered under any load.
    pub(crate) fn is_drained(&self) -> bool {
        self.slots.available_permits() == self.limits.slots()
    }

    async fn user(
        &self,
        mut presented: Presented,
        peer: &Peer,
        parts: &request::Parts,
    ) -> Result<User, Status> {
        let token = bearer_token(&parts.headers);
        if matches!(presented, Presented::Refused { .. }) && token.is_none() {
            // An authority may be newer than what has been read: a rotation must not cost a request.
            self.config.refresh().await;
            presented = peer.present(&self.config.published(), &parts.headers, UnixTime::now());
        }
        let refused = match presented {
            Presented::User(user) => {
                self.metrics.authenticated(Authenticated::Certificate);
                peer.recognize();
                if let Some(certificate) = peer.news_of_front_proxy(&self.config.published(), &parts.headers)
                {
                    self.front_proxies.believe(&certificate, SystemTime::now());
                }
                return Ok(user);
            }
            Presented::Refused { reason, proxy } => Some((reason, proxy)),
            Presented::Nothing => None,
        };
        let Some(token) = token else {
            let Some((reason, proxy)) = refused else {
                self.metrics.authenticated(Authenticated::Anonymous);
                return Ok(User::anonymous());
            };
            tracing::debug!(%reason, "refused a client certificate");
            if let Some(NoProxy { fault, message }) = proxy {
                self.front_proxies.refuse(fault, &message);
            }
            self.metrics.authenticated(Authenticated::Refused);
            return Err(Status::unauthorized());
        };
        match self.tokens.review(token).await {
            Ok(Some(user)) => {
                self.metrics.authenticated(Authenticated::Token);
                peer.recognize();
                Ok(User::clone(&user))
            }
            Ok(None) => {
                self.metrics.authenticated(Authenticated::Refused);
                Err(Status::unauthorized())
            }
            Err(error) => {
                self.metrics.authenticated(Authenticated::Error);
                Err(match error {
                    ReviewError::Busy => Status::too_many_requests(RETRY_AFTER_SECONDS),
                    _ => Status::unauthorized(),
                })
            }
        }
    }
}

/// Whether the request asks for health, which must not depend on load.
fn is_probe(info: &RequestInfo) -> bool {
    let first = info.path.trim_start_matches('/').split('/').next();
    matches!(first, Some("livez" | "readyz" | "healthz"))
}

/// Reads a body of at most so many bytes.
async fn read<B>(body: B, limit: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(limit)),
        Err(error) => Err(Status::bad_request(format!("failed to read the body: {error}"))),
    }
}

/// The header, if any, that asks to act as somebody else. Only kube-apiserver can tell whether that is allowed.
fn impersonation(headers: &HeaderMap) -> Option<&HeaderName> {
    let mut names = headers.keys();
    names.find(|name| name.as_str().starts_with("impersonate-"))
}
