//! What the library counts about itself. Names are those of k8s.io/apiserver where it counts the same; labels take
//! only values known at the start.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::request::RequestInfo;

const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Verbs that are told apart; a client may send any method.
const VERBS: [&str; 11] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "head",
    "options",
    "post",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct About {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    resource: &'static str,
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// How a client was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authenticated {
    /// By front proxy or certificate.
    Certificate,
    /// By token.
    Token,
    /// Not at all.
    Anonymous,
    /// Refused.
    Refused,
    /// Not known: the review failed.
    Error,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    resources: Vec<&'static str>,
    requests: Family<Answered, Counter>,
    durations: Family<About, Histogram>,
    in_flight: Gauge,
    rejected: Counter,
    connections: Gauge,
    dropped: Counter,
    handshake_errors: Counter,
    authentications: Family<Outcome, Counter>,
    token_reviews: Family<Outcome, Counter>,
    access_reviews: Family<Outcome, Counter>,
    denied: Counter,
    certificate_expiry: Gauge,
    reloads: Family<Outcome, Counter>,
}

impl Metrics {
    /// Registers everything. `resources` are the plural names served.
    pub(crate) fn register(resources: Vec<&'static str>, registry: &mut Registry) -> Self {
        let metrics = Self {
            resources,
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            rejected: Counter::default(),
            connections: Gauge::default(),
            dropped: Counter::default(),
            handshake_errors: Counter::default(),
            authentications: Family::default(),
            token_reviews: Family::default(),
            access_reviews: Family::default(),
            denied: Counter::default(),
            certificate_expiry: Gauge::default(),
            reloads: Family::default(),
        };
        let m = &metrics;
        let registry = registry.sub_registry_with_prefix("apiserver");
        registry.register("request", "Requests answered", m.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time until an answer began",
            m.durations.clone(),
        );
        registry.register(
            "current_inflight_requests",
            "Requests being answered, counted against the limit",
            m.in_flight.clone(),
        );
        registry.register(
            "rejected_requests",
            "Requests answered with 429 because too many were in flight",
            m.rejected.clone(),
        );
        registry.register("connections", "Open connections", m.connections.clone());
        registry.register(
            "dropped_connections",
            "Connections of unproven clients closed because too many were open",
            m.dropped.clone(),
        );
        registry.register(
            "tls_handshake_errors",
            "Handshakes that failed",
            m.handshake_errors.clone(),
        );
        registry.register(
            "authentications",
            "Requests by how their client was authenticated",
            m.authentications.clone(),
        );
        registry.register(
            "delegated_authn_request",
            "TokenReviews asked of kube-apiserver",
            m.token_reviews.clone(),
        );
        registry.register(
            "delegated_authz_request",
            "SubjectAccessReviews asked of kube-apiserver",
            m.access_reviews.clone(),
        );
        registry.register("denied_requests", "Requests answered with 403", m.denied.clone());
        registry.register(
            "serving_certificate_expiration_timestamp_seconds",
            "When the serving certificate ends",
            m.certificate_expiry.clone(),
        );
        registry.register(
            "serving_certificate_reloads",
            "New serving certificates taken and readings that found a bad one",
            m.reloads.clone(),
        );
        metrics
    }

    /// An answer began.
    pub(crate) fn answered(&self, info: &RequestInfo, code: StatusCode, took: Duration) {
        let verb = VERBS.iter().find(|&&verb| verb == info.verb);
        let resource = info.resource.as_ref().and_then(|about| {
            let mut served = self.resources.iter();
            served.find(|&&resource| resource == about.resource)
        });
        let (verb, resource) = (*verb.unwrap_or(&"other"), *resource.unwrap_or(&""));
        let about = About { verb, resource };
        self.durations.get_or_create(&about).observe(took.as_secs_f64());
        let code = u32::from(code.as_u16());
        self.requests
            .get_or_create(&Answered { verb, resource, code })
            .inc();
    }

    /// Counts a request in flight until dropped.
    pub(crate) fn in_flight(&self) -> GaugeGuard {
        GaugeGuard::new(&self.in_flight)
    }

    /// Counts a connection until dropped.
    pub(crate) fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.connections)
    }

    /// A connection was closed to make room for another.
    pub(crate) fn connection_dropped(&self) {
        self.dropped.inc();
    }

    /// A request was one too many.
    pub(crate) fn rejected(&self) {
        self.rejected.inc();
    }

    /// A handshake failed.
    pub(crate) fn handshake_error(&self) {
        self.handshake_errors.inc();
    }

    /// A client was authenticated, or not.
    pub(crate) fn authenticated(&self, how: Authenticated) {
        let result = match how {
            Authenticated::Certificate => "certificate",
            Authenticated::Token => "token",
            Authenticated::Anonymous => "anonymous",
            Authenticated::Refused => "refused",
            Authenticated::Error => "error",
        };
        self.authentications.get_or_create(&Outcome { result }).inc();
    }

    /// A token was reviewed, or could not be.
    pub(crate) fn token_review(&self, answered: bool) {
        self.token_reviews.get_or_create(&outcome(answered)).inc();
    }

    /// An access was reviewed, or could not be.
    pub(crate) fn access_review(&self, answered: bool) {
        self.access_reviews.get_or_create(&outcome(answered)).inc();
    }

    /// A request was denied.
    pub(crate) fn denied(&self) {
        self.denied.inc();
    }

    /// A serving certificate is in use.
    pub(crate) fn serving_certificate(&self, not_after: Timestamp) {
        self.certificate_expiry.set(not_after.as_second());
    }

    /// A new serving certificate was taken or refused.
    pub(crate) fn reloads(&self, taken: bool) {
        self.reloads.get_or_create(&outcome(taken)).inc();
    }
}

fn outcome(success: bool) -> Outcome {
    let result = if success { "success" } else { "error" };
    Outcome { result }
}

/// One more, while it lives.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
