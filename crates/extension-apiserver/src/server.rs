//! Putting a server together and running it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::health::HealthCheck;
use crate::options::{ApiGroup, Authentication, Authorization, Limits, ServingCertificate, VersionInfo};
use crate::status::Status;

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
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError::Listen { address, source })?;
        Ok(BoundServer {
            listener,
            parts: Arc::new(self),
        })
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
#[derive(Debug)]
pub struct BoundServer {
    listener: TcpListener,
    parts: Arc<ServerBuilder>,
}

impl BoundServer {
    /// The address bound, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` completes; then `/readyz` fails, no connection is accepted, and open requests have
    /// [`Limits::drain`] to end.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        shutdown.await;
        drop(self.parts);
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
}
