//! Putting a server together and running it.

mod connection;
mod handle;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

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
use crate::authn::watch::ConfigWatch;
pub use crate::authn::watch::LookupError;
use crate::authz::Authorizer;
use crate::health::HealthCheck;
use crate::metrics::Metrics;
use crate::options::{ApiGroup, Authentication, Authorization, Limits, ServingCertificate, VersionInfo};
use crate::status::Status;
pub use crate::tls::CertificateError;
use crate::tls::{Serving, server_config};

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

    /// Loads the certificate, reads the authentication `ConfigMap` and binds the address. Nothing is answered yet.
    pub async fn bind(self, address: SocketAddr) -> Result<BoundServer, BindError> {
        let certificate = Serving::load(&self.certificate, Timestamp::now())?;
        let acceptor = TlsAcceptor::from(Arc::new(server_config(certificate.resolver())?));
        let mut config = ConfigWatch::new(self.client.clone());
        if let Err(error) = config.load().await {
            if !self.authentication.tolerate_lookup_failure {
                return Err(error.into());
            }
            tracing::warn!(%error, "starting all the same: client certificates are refused until it can be read");
        }
        let listener =
            crate::listen::listen(address).map_err(|source| BindError::Listen { address, source })?;
        let stopping = CancellationToken::new();
        let handler = Arc::new(self.handler(&config, stopping.clone()));
        Ok(BoundServer {
            listener,
            acceptor,
            certificate,
            config,
            handler,
            stopping,
        })
    }

    fn handler(self, config: &ConfigWatch, stopping: CancellationToken) -> Handler {
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
        Handler {
            published: config.subscribe(),
            tokens: TokenReviews::new(self.client.clone(), keep, Arc::clone(&metrics)),
            authorizer: Authorizer::new(self.client, self.authorization, Arc::clone(&metrics)),
            slots: Arc::new(Semaphore::new(self.limits.requests_in_flight)),
            limits: self.limits,
            api: Api::new(self.group, self.version, self.endpoints, checks),
            metrics,
            registry,
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
    config: ConfigWatch,
    handler: Arc<Handler>,
    stopping: CancellationToken,
}

impl BoundServer {
    /// The address bound, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` completes. From then on `/readyz` fails; after [`Limits::shutdown_delay`] no connection
    /// is accepted any more, and open requests have [`Limits::drain`] to end.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        // Both end when the set is dropped.
        let mut background = JoinSet::new();
        background.spawn(self.config.follow());
        background.spawn(self.certificate.keep_fresh(Arc::clone(&self.handler.metrics)));

        let (stop, delay) = (CancellationToken::new(), self.handler.limits.shutdown_delay);
        let accepting = connection::accept(self.listener, self.acceptor, self.handler, stop.clone());
        let stopping = async {
            shutdown.await;
            self.stopping.cancel();
            tokio::time::sleep(delay).await;
            stop.cancel();
        };
        tokio::join!(accepting, stopping);
    }
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
    Tls(#[from] rustls::Error),
}
