//! Putting a server together and running it.

mod admission;
mod builder;
mod connection;
mod handle;
mod metrics_page;
mod requests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub(crate) use self::builder::Endpoint;
pub use self::builder::{Server, ServerBuilder};
use self::handle::Handler;
use crate::authn::watch::Config;
pub use crate::authn::watch::LookupError;
use crate::tls::Serving;
pub use crate::tls::{CertificateError, TlsError};

/// How often is looked whether the last request in flight is answered.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

const FOLLOWING: &str = "following the authentication ConfigMap";
const KEEPING_FRESH: &str = "keeping the serving certificate fresh";

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

    /// Answers until `shutdown` completes. From then on `/readyz` fails; after [`Limits::shutdown_delay`](crate::Limits::shutdown_delay) no connection
    /// is accepted any more, and open requests have [`Limits::drain`](crate::Limits::drain) to end. The error says that a part of the server
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
