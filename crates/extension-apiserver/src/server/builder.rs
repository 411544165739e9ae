//! What a server is told before it has its port.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderValue;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::handle::Handler;
use super::{BindError, BoundServer};
use crate::answer::Api;
use crate::authn::token::TokenReviews;
use crate::authn::watch::Config;
use crate::authz::Authorizer;
use crate::cors::CorsOrigins;
use crate::front_proxies::FrontProxies;
use crate::health::HealthCheck;
use crate::metrics::Metrics;
use crate::options::{
    ApiGroup, Authentication, Authorities, Authorization, Limits, NamedCertificate, ServingCertificate,
    TlsOptions, VersionInfo,
};
use crate::review::Reviews;
use crate::status::Status;
use crate::tls::{Serving, server_config};

/// Answers an extra endpoint with a JSON document.
pub(crate) type Endpoint = Box<dyn Fn() -> Result<Vec<u8>, Status> + Send + Sync>;

/// Everything a server is made of. Start with [`Server::builder`].
pub struct ServerBuilder {
    authentication_client: kube::Client,
    authorization_client: kube::Client,
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
    cors: Option<CorsOrigins>,
    shares_port: bool,
    front_proxies: FrontProxies,
}

/// Where to start: [`Server::builder`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// A server of `group` that asks the cluster behind `client` who may do what.
    #[must_use]
    pub fn builder(client: kube::Client, group: ApiGroup, certificate: ServingCertificate) -> ServerBuilder {
        ServerBuilder {
            authentication_client: client.clone(),
            authorization_client: client,
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
            cors: None,
            shares_port: false,
            front_proxies: FrontProxies::default(),
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

    /// Whose scripts may read answers in a browser. Nobody's, if this is not called.
    #[must_use]
    pub fn cors(self, origins: CorsOrigins) -> Self {
        Self {
            cors: Some(origins),
            ..self
        }
    }

    /// Whether other processes may listen on the same port (`SO_REUSEPORT`): the kernel shares connections out.
    #[must_use]
    pub fn shares_port(self, shares_port: bool) -> Self {
        Self { shares_port, ..self }
    }

    /// Reads the authentication `ConfigMap` and asks who a token's owner is through this client, not through the one
    /// that the builder began with.
    #[must_use]
    pub fn authentication_client(self, client: kube::Client) -> Self {
        Self {
            authentication_client: client,
            ..self
        }
    }

    /// Asks what clients may do through this client, not through the one that the builder began with.
    #[must_use]
    pub fn authorization_client(self, client: kube::Client) -> Self {
        Self {
            authorization_client: client,
            ..self
        }
    }

    /// Where to note who came as a front proxy.
    #[must_use]
    pub fn front_proxies(self, front_proxies: FrontProxies) -> Self {
        Self {
            front_proxies,
            ..self
        }
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
        let config = Config::new(self.authentication_client.clone(), self.authorities.clone());
        if let Err(error) = config.load().await {
            if !self.authentication.tolerate_lookup_failure {
                return Err(error.into());
            }
            tracing::warn!(%error, "starting all the same: client certificates are refused until it can be read");
            config.go_without();
        }
        let listener = crate::listen::listen(address, self.shares_port)
            .map_err(|source| BindError::Listen { address, source })?;
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
                self.authentication_client,
                keep,
                Arc::clone(&reviews),
                Arc::clone(&metrics),
            ),
            authorizer: Authorizer::new(
                self.authorization_client,
                self.authorization,
                reviews,
                Arc::clone(&metrics),
            ),
            slots: Arc::new(Semaphore::new(self.limits.slots())),
            sending_away: CancellationToken::new(),
            count: AtomicU64::new(0),
            hashing: RandomState::new(),
            strict_transport_security: self.strict_transport_security,
            cors: self.cors,
            limits: self.limits,
            api: Api::new(self.group, self.version, self.endpoints, checks, ending),
            metrics,
            registry,
            front_proxies: self.front_proxies,
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
