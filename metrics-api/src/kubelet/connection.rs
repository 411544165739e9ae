//! One HTTP/1.1 connection over TLS to a kubelet.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use contract::report::{ErrorClass, NodeError};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use super::{
    address::{Endpoint, Host},
    authority::Authority,
    error,
    tls::{Presented, TlsMode, Verifier},
};

/// Read buffer of a connection. hyper's own grows to 400 kB and keeps 63 kB for each.
const READ_BUFFER: usize = 8192;
/// Age at which a connection is replaced, so that dates and names of certificates that kubelets renew are looked at
/// now and then.
const MAX_AGE: Duration = Duration::from_hours(1);

/// A certificate of our own, with its key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

/// How connections are secured.
#[derive(Clone, Debug)]
pub(super) struct Security {
    pub(super) mode: TlsMode,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) identity: Option<Arc<ClientCertificate>>,
}

/// A connection whose certificate was judged, as far as that needs no record.
pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// What the kubelet showed.
    pub(super) presented: Presented,
    endpoint: Endpoint,
    authority: Option<Arc<Authority>>,
    opened: Instant,
}

impl Security {
    fn config(&self, verifier: Arc<Verifier>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
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
    /// Dials, and shakes hands with what shows a certificate that passes.
    pub(super) async fn open(
        security: &Security,
        authority: Option<Arc<Authority>>,
        endpoint: &Endpoint,
    ) -> Result<Self, NodeError> {
        let name = endpoint.server_name()?;
        let dialled = match &endpoint.host {
            Host::Ip(ip) => TcpStream::connect((*ip, endpoint.port)).await,
            Host::Name(name) => TcpStream::connect((&**name, endpoint.port)).await,
        };
        let stream =
            dialled.map_err(|cause| unreachable_because("the connection could not be made", &cause))?;
        // Requests are one small write each: nothing to gather. Without it things are slower, not wrong.
        let _ = stream.set_nodelay(true);
        let algorithms = security.provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(security.mode, authority.clone(), algorithms));
        let config = security
            .config(Arc::clone(&verifier))
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
            opened: Instant::now(),
        })
    }

    /// Whether it may serve another request: it is open, not too old, and was judged by what is trusted now.
    pub(super) fn is_usable(&self, endpoint: &Endpoint, authority: Option<&Arc<Authority>>) -> bool {
        let same_authority = match (&self.authority, authority) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        };
        self.endpoint == *endpoint
            && same_authority
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
