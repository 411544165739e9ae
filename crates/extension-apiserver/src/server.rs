//! Putting a server together and running it.

mod admission;
mod connection;
mod handle;
mod metrics_page;
mod requests;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt as _;
use http::HeaderValue;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::handle::Handler;
use crate::answer::Api;
use crate::authn::token::TokenReviews;
use crate::authn::watch::Config;
pub use crate::authn::watch::LookupError;
use crate::authz::Authorizer;
use crate::health::HealthCheck;
use crate::metrics::Metrics;
use crate::options::{
    ApiGroup, Authentication, Authorities, Authorization, Limits, NamedCertificate, ServingCertificate,
    TlsOptions, VersionInfo,
};
use crate::refusals::FrontProxyRefusals;
use crate::review::Reviews;
use crate::status::Status;
pub use crate::tls::{CertificateError, TlsError};
use crate::tls::{Serving, server_config};

/// How often is looked whether the last request in flight is answered.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

const FOLLOWING: &str = "following the authentication ConfigMap";
const KEEPING_FRESH: &str = "keeping the serving certificate fresh";

/// Answers an extra endpoint with a JSON document.
pub(crate) type Endpoint = Box<dyn Fn() -> Result<Vec<u8>, Status> + Send + Sync>;

/// Everything a server is made of. Start with [`Server::builder`].
pub struct ServerBuilder {
    client: kube::Client,
    group: ApiGroup,
    checks: Vec<HealthCheck>,
    endpoints: BTreeMap<&'static str, Endpoint>,
    registry: Registry,
    version: VersionInfo,
    limits: Limits,
    certificate: ServingCertificate,
    authentication: Authentication,
    authorization: Authorization,
    authorities: Authorities,
    tls: TlsOptions,
    strict_transport_security: Option<HeaderValue>,
    refusals: FrontProxyRefusals,
}

/// Where to start: [`Server::builder`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// A server of `group` that asks the cluster behind `client` who may do what.
    #[must_use]
    pub fn builder(client: kube::Client, group: ApiGroup, certificate: ServingCertificate) -> ServerBuilder {
        ServerBuilder {
            client,
            group,
            checks: Vec::new(),
            endpoints: BTreeMap::new(),
            registry: Registry::default(),
            version: VersionInfo::default(),
            limits: Limits::default(),
            certificate,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            authorities: Authorities::default(),
            tls: TlsOptions::default(),
            strict_transport_security: None,
            refusals: FrontProxyRefusals::default(),
        }
    }
}

impl ServerBuilder {
    /// Adds a health check.
    #[must_use]
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds a JSON document at `path`, for those who may `get` that path as a non-resource URL.
    #[must_use]
    pub fn endpoint(
        mut self,
        path: &'static str,
        answer: impl Fn() -> Result<Vec<u8>, Status> + Send + Sync + 'static,
    ) -> Self {
        self.endpoints.insert(path, Box::new(answer));
        self
    }

    /// The registry behind `/metrics`, with the caller's metrics in it; the library adds its own.
    #[must_use]
    pub fn registry(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// What `/version` says.
    #[must_use]
    pub fn version(self, version: VersionInfo) -> Self {
        Self { version, ..self }
    }

    /// Limits and timeouts.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// How clients are authenticated.
    #[must_use]
    pub fn authentication(self, authentication: Authentication) -> Self {
        Self {
            authentication,
            ..self
        }
    }

    /// How clients are authorized.
    #[must_use]
    pub fn authorization(self, authorization: Authorization) -> Self {
        Self {
            authorization,
            ..self
        }
    }

    /// Whom to trust, where that is not what kube-apiserver publishes.
    #[must_use]
    pub fn authorities(self, authorities: Authorities) -> Self {
        Self { authorities, ..self }
    }

    /// How connections are encrypted.
    #[must_use]
    pub fn tls(self, tls: TlsOptions) -> Self {
        Self { tls, ..self }
    }

    /// The header `Strict-Transport-Security` of every answer, which tells browsers to come by TLS only.
    #[must_use]
    pub fn strict_transport_security(self, value: HeaderValue) -> Self {
        Self {
            strict_transport_security: Some(value),
            ..self
        }
    }

    /// Where to note who was refused though it spoke for somebody else.
    #[must_use]
    pub fn front_proxy_refusals(self, refusals: FrontProxyRefusals) -> Self {
        Self { refusals, ..self }
    }

    /// Loads the certificate, reads the authentication `ConfigMap` and binds the address. Nothing is answered yet.
    pub async fn bind(self, address: SocketAddr) -> Result<BoundServer, BindError> {
        let certificate = Serving::load(&self.certificate, Timestamp::now())?;
        let mut named = Vec::new();
        for NamedCertificate { certificate, key, .. } in &self.tls.by_name {
            let (certificate, key) = (certificate.clone(), key.clone());
            let files = ServingCertificate::Files { certificate, key };
            named.push(Serving::load(&files, Timestamp::now())?);
        }
        let tls = server_config(&self.tls, &certificate, &named, self.limits.http2)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let config = Config::new(self.client.clone(), self.authorities.clone());
        if let Err(error) = config.load().await {
            if !self.authentication.tolerate_lookup_failure {
                return Err(error.into());
            }
            tracing::warn!(%error, "starting all the same: client certificates are refused until it can be read");
            config.go_without();
        }
        let listener =
            crate::listen::listen(address).map_err(|source| BindError::Listen { address, source })?;
        let stopping = CancellationToken::new();
        let stop = CancellationToken::new();
        let handler = Arc::new(self.handler(Arc::clone(&config), stopping.clone(), stop.clone()));
        Ok(BoundServer {
            listener,
            acceptor,
            certificate,
            named,
            config,
            handler,
            stopping,
            stop,
        })
    }

    fn handler(self, config: Arc<Config>, stopping: CancellationToken, ending: CancellationToken) -> Handler {
        let mut registry = self.registry;
        let resources = self.group.resources.iter();
        let resources = resources.map(|resource| resource.info().plural).collect();
        let metrics = Arc::new(Metrics::register(resources, &mut registry));

        let published = config.subscribe();
        let mut checks = vec![HealthCheck::live("ping", || Ok(()))];
        checks.extend(self.checks);
        let read = HealthCheck::ready("authentication-config-sync", move || {
            if published.borrow().generation > 0 {
                Ok(())
            } else {
                Err("the authentication ConfigMap has not been read yet".to_owned())
            }
        });
        checks.push(read.quiet());
        checks.push(HealthCheck::ready("shutdown", move || {
            if stopping.is_cancelled() {
                Err("the process is shutting down".to_owned())
            } else {
                Ok(())
            }
        }));

        let keep = self.authentication.token_cache_ttl;
        let reviews = Arc::new(Reviews::default());
        Handler {
            config,
            tokens: TokenReviews::new(
                self.client.clone(),
                keep,
                Arc::clone(&reviews),
                Arc::clone(&metrics),
            ),
            authorizer: Authorizer::new(self.client, self.authorization, reviews, Arc::clone(&metrics)),
            slots: Arc::new(Semaphore::new(self.limits.slots())),
            sending_away: CancellationToken::new(),
            count: AtomicU64::new(0),
            hashing: RandomState::new(),
            strict_transport_security: self.strict_transport_security,
            limits: self.limits,
            api: Api::new(self.group, self.version, self.endpoints, checks, ending),
            metrics,
            registry,
            refusals: self.refusals,
        }
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// A server that has its port.
pub struct BoundServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    certificate: Serving,
    named: Vec<Serving>,
    config: Arc<Config>,
    handler: Arc<Handler>,
    stopping: CancellationToken,
    stop: CancellationToken,
}

impl BoundServer {
    /// The address bound, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` completes. From then on `/readyz` fails; after [`Limits::shutdown_delay`] no connection
    /// is accepted any more, and open requests have [`Limits::drain`] to end. The error says that a part of the server
    /// has ended before.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        // All of them end when the set is dropped.
        let mut background = JoinSet::new();
        let part = |part| move |()| part;
        background.spawn(Arc::clone(&self.config).follow().map(part(FOLLOWING)));
        background.spawn(self.config.reread().map(part(FOLLOWING)));
        let metrics = Arc::clone(&self.handler.metrics);
        for (nth, certificate) in std::iter::once(self.certificate).chain(self.named).enumerate() {
            let fresh = certificate.keep_fresh(Arc::clone(&metrics), nth == 0);
            background.spawn(fresh.map(part(KEEPING_FRESH)));
        }

        let handler = Arc::clone(&self.handler);
        let stop = self.stop;
        let accepting = connection::accept(self.listener, self.acceptor, self.handler, stop.clone());
        let stopping = async {
            shutdown.await;
            self.stopping.cancel();
            tokio::time::sleep(handler.limits.shutdown_delay).await;
            if handler.limits.shutdown_send_retry_after {
                handler.sending_away.cancel();
                let _ = tokio::time::timeout(handler.limits.drain, drained(&handler)).await;
            }
            stop.cancel();
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(accepting, stopping) } => Ok(()),
            error = first_end(&mut background) => Err(error),
        }
    }
}

/// Waits until one of the tasks ends, which none should.
async fn first_end(background: &mut JoinSet<&'static str>) -> ServeError {
    match background.join_next().await {
        Some(Ok(part)) => ServeError { part, source: None },
        Some(Err(error)) => ServeError {
            part: "a part in the background",
            source: Some(error),
        },
        None => std::future::pending().await,
    }
}

/// Waits until no request is in flight.
async fn drained(handler: &Handler) {
    while !handler.is_drained() {
        tokio::time::sleep(DRAIN_CHECK).await;
    }
}

/// A part of the server has ended, which none should: without it clients would be judged by what is no longer true.
#[derive(Debug, thiserror::Error)]
#[error("{part} has ended, which is a bug: the server cannot go on without it")]
pub struct ServeError {
    part: &'static str,
    source: Option<tokio::task::JoinError>,
}

impl fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundServer")
            .field("listener", &self.listener)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be bound.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The serving certificate cannot be used.
    #[error("failed to load the serving certificate")]
    Certificate(#[from] CertificateError),
    /// It cannot be found out whom to trust.
    #[error(transparent)]
    Authentication(#[from] LookupError),
    /// TLS cannot be set up.
    #[error("failed to set up TLS")]
    Tls(#[from] TlsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_is_named() {
        let mut background = JoinSet::new();
        background.spawn(std::future::pending());
        background.spawn(std::future::ready(FOLLOWING));
        let error = first_end(&mut background).await;
        assert!(error.to_string().starts_with(FOLLOWING), "{error}");
        background.spawn(async { panic!("a bug") });
        let error = first_end(&mut background).await;
        assert!(crate::error_chain(&error).contains("a bug"), "{error:?}");
    }
}
