//! One HTTP/1.1 connection over TLS to a kubelet.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use contract::report::{ErrorClass, NodeError};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::Resumption, crypto::CryptoProvider};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    address::{Endpoint, Guard, Host},
    authority::Authority,
    error,
    identity::ClientCertificate,
    tls::{Presented, TlsMode, Verifier},
};

/// Read buffer of a connection. hyper's own grows to 400 kB and keeps 63 kB for each.
const READ_BUFFER: usize = 8192;
/// Age at which a connection is replaced, so that dates and names of certificates that kubelets renew are looked at
/// now and then.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Names looked up at once.
const LOOK_UPS: usize = 32;
const NODES_NAME: &str = "the Node's name";
const API_SERVERS_NAME: &str = "the name of kube-apiserver, whose addresses are never dialled,";
/// Time for a connection where there are other addresses to try.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(3);

/// How connections are secured.
#[derive(Clone, Debug)]
pub(super) struct Security {
    pub(super) mode: TlsMode,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) identity: Option<watch::Receiver<Arc<ClientCertificate>>>,
    pub(super) guard: Guard,
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    Address,
    /// Those of kube-apiservers, which are never dialled.
    ApiServers,
    Connection,
    Handshake,
    #[default]
    Answer,
}

impl Awaited {
    /// Why nothing came of it in that time.
    pub(super) fn in_vain(self, time: Duration) -> NodeError {
        let unresolved = |whose: &str| format!("{whose} could not be resolved: DNS did not answer");
        let (class, what) = match self {
            Self::Address => (ErrorClass::NameNotResolved, unresolved(NODES_NAME)),
            Self::ApiServers => (ErrorClass::NameNotResolved, unresolved(API_SERVERS_NAME)),
            Self::Connection => (
                ErrorClass::Timeout,
                "the connection could not be made: nothing answered, as behind a firewall".to_owned(),
            ),
            Self::Handshake => (ErrorClass::Timeout, "no end of the TLS handshake".to_owned()),
            Self::Answer => (ErrorClass::Timeout, "no complete answer".to_owned()),
        };
        error(class, format!("{what} within {} s", time.as_secs_f64()))
    }
}

/// A connection whose certificate was judged, as far as that needs no record.
pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// What the kubelet showed.
    pub(super) presented: Presented,
    endpoint: Endpoint,
    authority: Option<Arc<Authority>>,
    identity: Option<Arc<ClientCertificate>>,
    opened: Instant,
}

impl Security {
    fn identity(&self) -> Option<Arc<ClientCertificate>> {
        self.identity
            .as_ref()
            .map(|identity| Arc::clone(&identity.borrow()))
    }

    fn config(
        &self,
        verifier: Arc<Verifier>,
        identity: Option<&ClientCertificate>,
    ) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
        // A resumed session shows no certificate to judge.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl Connection {
    /// Dials, and shakes hands with what shows a certificate that passes. `awaited` is what that hangs at.
    pub(super) async fn open(
        security: &Security,
        authority: Option<Arc<Authority>>,
        endpoint: &Endpoint,
        awaited: &mut Awaited,
    ) -> Result<Self, NodeError> {
        let name = endpoint.server_name()?;
        let stream = dial(&security.guard, endpoint, awaited).await?;
        *awaited = Awaited::Handshake;
        // Requests are one small write each: nothing to gather. Without it things are slower, not wrong.
        let _ = stream.set_nodelay(true);
        let algorithms = security.provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(security.mode, authority.clone(), algorithms));
        let identity = security.identity();
        let config = security
            .config(Arc::clone(&verifier), identity.as_deref())
            .map_err(|cause| error(ErrorClass::TlsHandshake, format!("TLS cannot be set up: {cause}")))?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = match (shaken, verifier.outcome()) {
            (Ok(stream), Some(Ok(_))) => stream,
            (_, Some(Err(refused))) => return Err(refused.clone()),
            (Err(cause), _) => return Err(handshake_error(&cause)),
            (Ok(_), None) => {
                return Err(error(
                    ErrorClass::TlsHandshake,
                    "the kubelet showed no certificate",
                ));
            }
        };
        let Some(Ok(presented)) = verifier.outcome().cloned() else {
            return Err(error(
                ErrorClass::TlsHandshake,
                "the kubelet showed no certificate",
            ));
        };
        let (sender, driver) = http1::Builder::new()
            .read_buf_exact_size(Some(READ_BUFFER))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|cause| broken(&cause))?;
        // Ends when the sender is dropped or the kubelet hangs up; either is seen at the next request.
        tokio::spawn(async move {
            if let Err(cause) = driver.await {
                tracing::debug!(%cause, "a connection to a kubelet ended");
            }
        });
        Ok(Self {
            sender,
            presented,
            endpoint: endpoint.clone(),
            authority,
            identity,
            opened: Instant::now(),
        })
    }

    /// Whether it may serve another request: it is open, not too old, was judged by what is trusted now, and shows
    /// what is shown now.
    pub(super) fn is_usable(
        &self,
        endpoint: &Endpoint,
        authority: Option<&Arc<Authority>>,
        security: &Security,
    ) -> bool {
        fn same<T>(then: Option<&Arc<T>>, now: Option<&Arc<T>>) -> bool {
            match (then, now) {
                (Some(then), Some(now)) => Arc::ptr_eq(then, now),
                (None, None) => true,
                _ => false,
            }
        }
        self.endpoint == *endpoint
            && same(self.authority.as_ref(), authority)
            && same(self.identity.as_ref(), security.identity().as_ref())
            && self.opened.elapsed() < MAX_AGE
            && !self.sender.is_closed()
    }

    /// Sends a request.
    pub(super) async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, NodeError> {
        self.sender.ready().await.map_err(|cause| broken(&cause))?;
        self.sender
            .send_request(request)
            .await
            .map_err(|cause| broken(&cause))
    }
}

/// Dials the addresses of a kubelet that may be dialled, one after the other.
async fn dial(guard: &Guard, endpoint: &Endpoint, awaited: &mut Awaited) -> Result<TcpStream, NodeError> {
    let port = endpoint.port;
    *awaited = Awaited::Address;
    let found = resolve(&endpoint.host, NODES_NAME).await?;
    *awaited = Awaited::ApiServers;
    let mut api_servers = Vec::new();
    for host in guard.api_servers_at(port) {
        api_servers.extend(resolve(host, API_SERVERS_NAME).await?);
    }
    *awaited = Awaited::Connection;
    let passed = guard.pass(&found, &api_servers);
    let mut failure = error(
        ErrorClass::NoAddress,
        "the Node's address leads to this pod, to a link-local service or to an API server, and is never dialled",
    );
    for (at, ip) in passed.iter().enumerate() {
        let connecting = TcpStream::connect((*ip, port));
        let connected = if at + 1 == passed.len() {
            connecting.await
        } else {
            let given_up = || io::Error::from(io::ErrorKind::TimedOut);
            timeout(ONE_OF_SEVERAL, connecting)
                .await
                .unwrap_or_else(|_| Err(given_up()))
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(cause) => failure = unreachable_because("the connection could not be made", &cause),
        }
    }
    Err(failure)
}

/// The addresses of a host. A look-up that hangs keeps its place until it ends: there are never more of them than
/// [`LOOK_UPS`], whatever names Nodes have.
async fn resolve(host: &Host, whose: &str) -> Result<Vec<IpAddr>, NodeError> {
    static PLACES: Semaphore = Semaphore::const_new(LOOK_UPS);
    let name = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => name.to_string(),
    };
    // The semaphore is never closed.
    let Ok(place) = PLACES.acquire().await else {
        return Ok(Vec::new());
    };
    let looked_up = tokio::spawn(async move {
        let _place = place;
        lookup_host((name, 0))
            .await
            .map(|found| found.map(|address| address.ip()).collect())
    });
    looked_up
        .await
        .unwrap_or_else(|cause| Err(io::Error::other(cause)))
        .map_err(|cause| {
            let message = format!("{whose} could not be resolved: {cause}");
            error(ErrorClass::NameNotResolved, message)
        })
}

/// A connection that broke.
pub(super) fn broken(cause: &hyper::Error) -> NodeError {
    let what = if cause.is_parse() {
        return error(ErrorClass::Malformed, "the answer is no HTTP/1.1");
    } else if cause.is_incomplete_message() || cause.is_canceled() || cause.is_closed() {
        "the kubelet closed the connection before its answer was complete"
    } else {
        "the connection broke"
    };
    error(ErrorClass::Unreachable, what)
}

fn unreachable_because(what: &str, cause: &io::Error) -> NodeError {
    error(ErrorClass::Unreachable, format!("{what}: {cause}"))
}

fn handshake_error(cause: &io::Error) -> NodeError {
    let tls = cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => error(
            ErrorClass::TlsHandshake,
            format!("the TLS handshake failed: {tls}"),
        ),
        None if cause.kind() == io::ErrorKind::UnexpectedEof => error(
            ErrorClass::TlsHandshake,
            "the kubelet closed the connection during the TLS handshake",
        ),
        None => unreachable_because("the connection broke during the TLS handshake", cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_a_class_of_its_own() {
        // Longer than a label can be, so that no server is asked.
        let name = Host::Name("a".repeat(64).into());
        let error = resolve(&name, NODES_NAME).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::NameNotResolved, "{}", error.message);
        assert!(
            error
                .message
                .starts_with("the Node's name could not be resolved: "),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_look_up_without_an_end_is_no_matter_of_the_kubelet() {
        let error = Awaited::Address.in_vain(Duration::from_secs(10));
        assert_eq!(error.class, ErrorClass::NameNotResolved);
        assert_eq!(
            error.message,
            "the Node's name could not be resolved: DNS did not answer within 10 s"
        );
        assert_eq!(
            Awaited::Connection.in_vain(Duration::from_secs(10)).class,
            ErrorClass::Timeout
        );
    }
}
