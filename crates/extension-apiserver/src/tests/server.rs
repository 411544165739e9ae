//! The whole server over loopback: real TLS, both versions of HTTP, a scripted cluster behind it.

mod answers;
mod ending;
mod limits;
mod start;
mod trust;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{Authority, Leaf};
use super::cluster::{Cluster, Content};
use super::published;
use crate::json::{JsonArray, JsonObject};
use crate::memory::{Kind, Memory};
use crate::{
    ApiGroup, Authentication, Authorities, CorsOrigins, FrontProxies, FrontProxyFault, FrontProxyFiles, Item,
    Key, Limits, ListScope, NamedCertificate, Resource, ResourceInfo, ServeError, Server, ServingCertificate,
    Status, TlsOptions, TlsVersion,
};

const NAME: &str = "metrics-api.system.svc";
const THINGS: &str = "/apis/example.dev/v1/things";
const DEADLINE: Duration = Duration::from_secs(20);

/// So many things of a kilobyte each, or the one thing.
struct Things {
    info: ResourceInfo,
    count: usize,
}

struct Thing {
    name: String,
    pad: usize,
}

impl Resource for Things {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status> {
        if key.name != "one" {
            return Err(Status::not_found("example.dev", "things", key.name));
        }
        let name = "one".to_owned();
        visit(&Thing { name, pad: 0 });
        Ok(())
    }

    fn list(
        &self,
        scope: ListScope<'_>,
        visit: &mut dyn FnMut(&dyn Item) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        for at in 0..self.count {
            let (name, pad) = match self.count {
                1 => ("one".to_owned(), 0),
                _ => (format!("{at:08}"), 1000),
            };
            if scope.after.is_none_or(|after| *name > *after.name) && visit(&Thing { name, pad }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Item for Thing {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        None
    }

    fn label(&self, _: &str) -> Option<&str> {
        None
    }

    fn visit_labels(&self, _: &mut dyn FnMut(&str, &str)) {}

    fn creation_timestamp(&self) -> Option<Timestamp> {
        None
    }

    fn write_fields(&self, object: &mut JsonObject<'_>) {
        object.string("pad", &"x".repeat(self.pad));
    }

    fn write_cells(&self, _: &mut JsonArray<'_>) {}
}

/// A server with its cluster and authorities.
struct World {
    serving: Authority,
    clients: Authority,
    proxies: Authority,
    cluster: Arc<Cluster>,
    directory: tempfile::TempDir,
    count: usize,
    front_proxies: FrontProxies,
}

struct Running {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

/// Both protocols are tested.
fn limits() -> Limits {
    Limits {
        http2: true,
        ..Limits::default()
    }
}

impl World {
    fn new() -> Self {
        let (clients, proxies) = (Authority::new("kubernetes"), Authority::new("front-proxy-ca"));
        let cluster = Cluster::new(Ok(published(Some(&clients), Some(&proxies))));
        let world = Self {
            serving: Authority::new("serving"),
            clients,
            proxies,
            cluster,
            directory: tempfile::tempdir().unwrap(),
            count: 1,
            front_proxies: FrontProxies::default(),
        };
        world.store(&world.serving.server(NAME));
        world
    }

    fn store(&self, leaf: &Leaf) {
        std::fs::write(self.path("tls.crt"), leaf.certificate_pem()).unwrap();
        std::fs::write(self.path("tls.key"), leaf.key_pem()).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.directory.path(), name)
    }

    fn builder(&self) -> crate::ServerBuilder {
        let info = ResourceInfo::cluster_scoped("things", "Thing");
        let group = ApiGroup {
            name: "example.dev",
            versions: vec!["v1"],
            resources: vec![Arc::new(Things {
                info,
                count: self.count,
            })],
        };
        let certificate = ServingCertificate::Files {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
        };
        Server::builder(self.cluster.client(), group, certificate)
            .limits(limits())
            .front_proxies(self.front_proxies.clone())
    }

    async fn start(&self) -> Running {
        start(self.builder()).await
    }

    async fn start_with(&self, limits: Limits) -> Running {
        start(self.builder().limits(limits)).await
    }

    fn proxy(&self) -> Leaf {
        self.proxies.client("front-proxy-client")
    }

    async fn connect(&self, running: &Running, leaf: Option<&Leaf>, http: Http) -> Connection {
        self.dial(running, leaf.map(resolver), http).await.unwrap()
    }

    async fn dial(
        &self,
        running: &Running,
        resolver: Option<Arc<dyn ResolvesClientCert>>,
        http: Http,
    ) -> Result<Connection, Box<dyn std::error::Error>> {
        self.dial_by(&rustls::version::TLS13, running, resolver, http)
            .await
    }

    async fn dial_by(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        running: &Running,
        resolver: Option<Arc<dyn ResolvesClientCert>>,
        http: Http,
    ) -> Result<Connection, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(running.address).await?;
        let alpn = match http {
            Http::One => "http/1.1",
            Http::Two => "h2",
        };
        let tls = self.shake(version, stream, resolver, &[alpn]).await?;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        let io = TokioIo::new(tls);
        Ok(match http {
            Http::One => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Connection::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Connection::Two(sender)
            }
        })
    }

    /// TLS with the front proxy's certificate.
    async fn shake_as_proxy(&self, stream: TcpStream, alpn: &str) -> TlsStream<TcpStream> {
        let resolver = Some(resolver(&self.proxy()));
        self.shake(&rustls::version::TLS13, stream, resolver, &[alpn])
            .await
            .unwrap()
    }

    async fn shake(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        stream: TcpStream,
        resolver: Option<Arc<dyn ResolvesClientCert>>,
        alpn: &[&str],
    ) -> Result<TlsStream<TcpStream>, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.serving.certificate())?;
        let config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[version])?
            .with_root_certificates(roots);
        let mut config = match resolver {
            Some(resolver) => config.with_client_cert_resolver(resolver),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(NAME)?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }
}

async fn start(builder: crate::ServerBuilder) -> Running {
    let bound = builder.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.local_addr().unwrap();
    let (shutdown, stopped) = oneshot::channel();
    let served = tokio::spawn(bound.serve(async move {
        let _ = stopped.await;
    }));
    Running {
        address,
        shutdown: Some(shutdown),
        served,
    }
}

fn resolver(leaf: &Leaf) -> Arc<dyn ResolvesClientCert> {
    with_key(leaf, leaf)
}

/// Shows one leaf's certificate and signs with another's key.
fn with_key(shown: &Leaf, signs: &Leaf) -> Arc<dyn ResolvesClientCert> {
    let key = crate::tls::provider()
        .key_provider
        .load_private_key(signs.key())
        .unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(shown.chain(), key)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl Connection {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Two(sender) => sender.is_closed(),
        }
    }

    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, Bytes::new()).await.unwrap()
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, hyper::Error> {
        let uri = match self {
            Self::One(_) => path.to_owned(),
            Self::Two(_) => format!("https://{NAME}{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri).header("host", NAME);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        let text = body.collect().await?.to_bytes().to_vec();
        Ok(Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(text).unwrap(),
        })
    }
}

const JANE: [(&str, &str); 2] = [("x-remote-user", "jane"), ("x-remote-group", "devs")];
const FORBIDDEN: &str = "things.example.dev is forbidden: User \"system:anonymous\" cannot list resource \"things\" \
                         in API group \"example.dev\" at the cluster scope";
