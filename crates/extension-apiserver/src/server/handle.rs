//! One request, from its headers to the beginning of its answer: limit, authenticate, authorize, answer.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header, request};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use prometheus_client::registry::Registry;
use rustls::pki_types::UnixTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::answer::{self, Api};
use crate::authn::peer::Peer;
use crate::authn::token::TokenReviews;
use crate::authn::watch::Published;
use crate::authn::{Presented, User, bearer_token};
use crate::authz::Authorizer;
use crate::body::Body;
use crate::metrics::{Authenticated, GaugeGuard, Metrics};
use crate::options::Limits;
use crate::request::{RequestInfo, request_info};
use crate::status::Status;

/// When a client that was one too many may come again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Everything that requests are answered with.
pub(crate) struct Handler {
    pub(crate) api: Api,
    pub(crate) published: watch::Receiver<Arc<Published>>,
    pub(crate) tokens: TokenReviews,
    pub(crate) authorizer: Authorizer,
    pub(crate) limits: Limits,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
}

/// A place among the requests in flight, kept until the answer is sent.
pub(crate) type Slot = Option<(OwnedSemaphorePermit, GaugeGuard)>;

impl Handler {
    /// Answers one request of `peer`.
    pub(crate) async fn answer<B>(&self, peer: &Peer, request: Request<B>) -> (Response<Body>, Slot)
    where
        B: HttpBody<Data = Bytes, Error: Display>,
    {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let info = request_info(&parts.method, &parts.uri);
        let limit = self.limits.request_timeout;
        let decided = tokio::time::timeout(limit, self.decide(peer, &parts, &info, body)).await;
        let (mut response, slot) = match decided {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => (answer::refuse(&status, &parts.headers), None),
            Err(_) => {
                let late = Status::timeout("request did not complete within the allotted timeout");
                (answer::refuse(&late, &parts.headers), None)
            }
        };
        if parts.method == Method::HEAD {
            let length = response.body().size_hint().exact();
            if let Some(length) = length {
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = Body::full(Bytes::new());
        }
        self.metrics.answered(&info, response.status(), begun.elapsed());
        (response, slot)
    }

    async fn decide<B>(
        &self,
        peer: &Peer,
        parts: &request::Parts,
        info: &RequestInfo,
        body: B,
    ) -> Result<(Response<Body>, Slot), Status>
    where
        B: HttpBody<Data = Bytes, Error: Display>,
    {
        let published = self.published.borrow().clone();
        let presented = peer.present(&published, &parts.headers, UnixTime::now());
        let slot = if self.is_exempt(&presented, parts, info) {
            None
        } else {
            Some(self.slot()?)
        };
        let user = self.user(presented, parts).await?;
        self.authorizer.authorize(&user, info).await?;
        discard(body, self.limits.body_bytes).await?;
        let response = if info.path == "/metrics" {
            self.metrics_page(&parts.method)?
        } else {
            answer::respond(&self.api, info, parts)
        };
        Ok((response, slot))
    }

    /// Whether a request is answered under any load: those of kube-apiserver's own checks, and probes. Both must cost
    /// nothing, so no review may be needed for them.
    fn is_exempt(&self, presented: &Presented, parts: &request::Parts, info: &RequestInfo) -> bool {
        match presented {
            Presented::User(user) if user.is_master() => true,
            _ => is_probe(info) && self.authorizer.is_open(info) && bearer_token(&parts.headers).is_none(),
        }
    }

    fn slot(&self) -> Result<(OwnedSemaphorePermit, GaugeGuard), Status> {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.metrics.rejected();
            return Err(Status::too_many_requests(RETRY_AFTER_SECONDS));
        };
        Ok((permit, self.metrics.in_flight()))
    }

    async fn user(&self, presented: Presented, parts: &request::Parts) -> Result<User, Status> {
        let refused = match presented {
            Presented::User(user) => {
                self.metrics.authenticated(Authenticated::Certificate);
                return Ok(user);
            }
            Presented::Refused(reason) => Some(reason),
            Presented::Nothing => None,
        };
        let Some(token) = bearer_token(&parts.headers) else {
            let Some(reason) = refused else {
                self.metrics.authenticated(Authenticated::Anonymous);
                return Ok(User::anonymous());
            };
            tracing::debug!(%reason, "refused a client certificate");
            self.metrics.authenticated(Authenticated::Refused);
            return Err(Status::unauthorized());
        };
        match self.tokens.review(token).await {
            Ok(Some(user)) => {
                self.metrics.authenticated(Authenticated::Token);
                Ok(User::clone(&user))
            }
            Ok(None) => {
                self.metrics.authenticated(Authenticated::Refused);
                Err(Status::unauthorized())
            }
            Err(_) => {
                self.metrics.authenticated(Authenticated::Error);
                Err(Status::unauthorized())
            }
        }
    }

    fn metrics_page(&self, method: &Method) -> Result<Response<Body>, Status> {
        if method != Method::GET && method != Method::HEAD {
            return Err(Status::method_not_allowed());
        }
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)
            .map_err(|error| Status::internal(&format_args!("failed to print the metrics: {error}")))?;
        let mut response = Response::new(Body::full(page));
        let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(openmetrics));
        Ok(response)
    }
}

/// Whether the request asks for health, which must not depend on load.
fn is_probe(info: &RequestInfo) -> bool {
    let first = info.path.trim_start_matches('/').split('/').next();
    matches!(first, Some("livez" | "readyz" | "healthz"))
}

/// Reads a request's body to its end and forgets it: nothing here needs one.
async fn discard<B>(body: B, limit: usize) -> Result<(), Status>
where
    B: HttpBody<Data = Bytes, Error: Display>,
{
    if body.is_end_stream() {
        return Ok(());
    }
    let too_large = || Status::too_large(limit);
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let (mut body, mut left) = (pin!(body), limit);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("failed to read the body: {error}")))?;
        let length = frame.data_ref().map_or(0, Bytes::len);
        left = left.checked_sub(length).ok_or_else(too_large)?;
    }
    Ok(())
}
