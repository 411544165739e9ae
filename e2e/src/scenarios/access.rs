//! Requests over connections that a scenario makes itself: with any certificate, any header, to any address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::pki::Identity;

/// A list that says whether metrics are served.
pub(super) const NODES: &str = "/apis/metrics.k8s.io/v1/nodes";
const TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that broke ends at once.
const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// Both TLS versions that are served, with a name for messages.
pub(super) const TLS_VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [
    ("TLS 1.2", &rustls::version::TLS12),
    ("TLS 1.3", &rustls::version::TLS13),
];

/// A TLS server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// What is dialled.
    pub(super) address: SocketAddr,
    /// What its certificate must name.
    pub(super) name: String,
    roots: Arc<RootCertStore>,
}

impl Server {
    /// A server at `address` whose certificate must name `name` and chain to one of `authorities` (PEM).
    pub(super) fn new(address: SocketAddr, name: String, authorities: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            roots.add(certificate?)?;
        }
        ensure!(!roots.is_empty(), "no authority to verify {name} with");
        Ok(Self {
            address,
            name,
            roots: Arc::new(roots),
        })
    }

    /// Opens a connection, with a client certificate if there is one.
    pub(super) async fn connect(
        &self,
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Connection> {
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_cert_resolver(Arc::new(Presented::new(identity)?));
        let name = ServerName::try_from(self.name.clone())?;
        let connecting = async {
            let tcp = TcpStream::connect(self.address).await?;
            let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
            Connection::over(tls, &self.name).await
        };
        let limited = tokio::time::timeout(TIMEOUT, connecting).await;
        limited.with_context(|| format!("{}: no connection within {TIMEOUT:?}", self.address))?
    }

    /// The certificate that it shows now.
    pub(super) async fn certificate(&self) -> Result<CertificateDer<'static>> {
        let config = ClientConfig::builder()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        let name = ServerName::try_from(self.name.clone())?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(self.address).await?);
        let tls = tokio::time::timeout(TIMEOUT, tls)
            .await
            .context("no handshake in time")??;
        let (_, session) = tls.get_ref();
        let shown = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .context("no certificate was shown")?;
        Ok(shown.clone().into_owned())
    }

    /// Opens a connection for one GET.
    pub(super) async fn get(
        &self,
        identity: Option<&Identity>,
        path: &str,
        headers: &Headers<'_>,
    ) -> Result<Answer> {
        self.connect(identity, &rustls::version::TLS13)
            .await?
            .get(path, headers)
            .await
    }
}

/// Names and values.
pub(super) type Headers<'a> = [(&'a str, &'a str)];

/// An HTTP/1.1 connection.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// Ends with the connection, and knows why that ended.
    driver: Option<JoinHandle<hyper::Result<()>>>,
    host: String,
}

impl Connection {
    /// Without TLS.
    pub(super) async fn plain(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address).await?, &address.to_string()).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, host: &str) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            driver: Some(tokio::spawn(connection)),
            host: host.to_owned(),
        })
    }

    /// One GET.
    pub(super) async fn get(&mut self, path: &str, headers: &Headers<'_>) -> Result<Answer> {
        let mut request = Request::get(path).header(HOST, &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new())?;
        let answering = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, anyhow::Error>(Answer {
                status,
                body: String::from_utf8(body.to_vec())?,
            })
        };
        let limited = tokio::time::timeout(TIMEOUT, answering).await;
        match limited.with_context(|| format!("GET {path}: no answer within {TIMEOUT:?}"))? {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.cause().await.unwrap_or(error)),
        }
    }

    /// Why the connection ended, if it did. A request that came too late knows only that it is closed.
    async fn cause(&mut self) -> Option<anyhow::Error> {
        let ended = tokio::time::timeout(ENDED_WITHIN, self.driver.as_mut()?).await;
        let ended = ended.ok()?;
        self.driver = None;
        ended.ok()?.err().map(Into::into)
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body.
    pub(super) body: String,
}

impl Answer {
    /// The body as JSON, if the answer is 200.
    pub(super) fn json(&self) -> Result<Value> {
        self.expect(StatusCode::OK)?;
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }

    /// An error unless this is the status.
    pub(super) fn expect(&self, status: StatusCode) -> Result<&Self> {
        ensure!(
            self.status == status,
            "expected {status}, the answer is {}: {}",
            self.status,
            self.body
        );
        Ok(self)
    }

    /// An error unless this is a `metav1.Status` with this code, whose message contains `part`.
    pub(super) fn expect_status(&self, status: StatusCode, part: &str) -> Result<()> {
        self.expect(status)?;
        let body: Value =
            serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))?;
        ensure!(
            body["kind"] == "Status" && body["code"] == status.as_u16(),
            "no Status: {body}"
        );
        ensure!(
            body["message"].as_str().is_some_and(|m| m.contains(part)),
            "no {part:?} in {body}"
        );
        Ok(())
    }
}

/// Shows one certificate, whatever the server asks for, and whether or not the key belongs to it.
#[derive(Debug)]
struct Presented(Option<Arc<CertifiedKey>>);

impl Presented {
    fn new(identity: Option<&Identity>) -> Result<Self> {
        let certified = identity.map(|identity| {
            let key = aws_lc_rs::sign::any_supported_type(&identity.key)?;
            Ok::<_, rustls::Error>(Arc::new(CertifiedKey::new(
                vec![identity.certificate.clone()],
                key,
            )))
        });
        Ok(Self(certified.transpose()?))
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
