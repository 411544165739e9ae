//! The whole server over loopback: real TLS, both versions of HTTP, a scripted cluster behind it.

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
    ApiGroup, Authentication, Authorities, FrontProxyFiles, Item, Key, Limits, ListScope, NamedCertificate,
    Resource, ResourceInfo, ServeError, Server, ServingCertificate, Status, TlsOptions, TlsVersion,
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
}

struct Running {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
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

#[tokio::test]
async fn the_front_proxy_is_answered_by_both_versions_of_http() {
    let world = World::new();
    let running = world.start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        let answer = connection.get(THINGS, &JANE).await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        assert_eq!(answer.json()["items"][0]["metadata"]["name"], "one");
        let missing = connection.get("/apis/example.dev/v1/things/two", &JANE).await;
        assert_eq!(missing.code, 404, "{}", missing.text);
        let head = connection
            .send(Method::HEAD, "/readyz", &JANE, Bytes::new())
            .await
            .unwrap();
        assert_eq!((head.code, head.text.as_str()), (200, ""));
        let joe = connection.get(THINGS, &[("x-remote-user", "joe")]).await;
        assert_eq!(joe.code, 403);
        assert!(joe.message().contains("User \"joe\" cannot list"), "{}", joe.text);
    }
    let asked = world.cluster.reviews("SubjectAccessReview");
    assert_eq!(
        asked.len(),
        3,
        "the second connection is answered from the cache: {asked:?}"
    );
    assert_eq!(
        asked[0]["spec"]["groups"],
        serde_json::json!(["devs", "system:authenticated"])
    );
}

#[tokio::test]
async fn forged_headers_without_a_certificate_are_anonymous() {
    let world = World::new();
    let running = world.start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, None, http).await;
        for headers in [&JANE[..], &[]] {
            let answer = connection.get(THINGS, headers).await;
            assert_eq!((answer.code, answer.message().as_str()), (403, FORBIDDEN));
            assert_eq!(answer.json()["reason"], "Forbidden");
        }
        let token = [("authorization", "Bearer token-jane"), ("x-remote-user", "root")];
        assert_eq!(connection.get(THINGS, &token).await.code, 200);
        assert_eq!(connection.get("/readyz", &[]).await.code, 200);
        let bad = connection
            .get(THINGS, &[("authorization", "Bearer nobody")])
            .await;
        assert_eq!((bad.code, bad.message().as_str()), (401, "Unauthorized"));
    }
    let users: Vec<_> = world
        .cluster
        .reviews("SubjectAccessReview")
        .into_iter()
        .map(|review| review["spec"]["user"].clone())
        .collect();
    assert_eq!(users, ["system:anonymous", "jane"]);
    assert_eq!(world.cluster.reviews("TokenReview").len(), 2);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_unless_a_token_comes_too() {
    let world = World::new();
    let running = world.start().await;
    let past = "2021-01-01T00:00:00Z".parse().unwrap();
    for leaf in [
        Authority::new("front-proxy-ca").client("front-proxy-client"),
        world.proxies.leaf("front-proxy-client").ends(past).client(),
        world.proxies.client("somebody"),
    ] {
        let mut connection = world.connect(&running, Some(&leaf), Http::Two).await;
        let token = [JANE[0], ("authorization", "Bearer token-jane")];
        assert_eq!(connection.get(THINGS, &token).await.code, 200);
        let answer = connection.get(THINGS, &JANE).await;
        assert_eq!((answer.code, answer.message().as_str()), (401, "Unauthorized"));
    }
    let admin = world
        .clients
        .leaf("admin")
        .organization("system:masters")
        .client();
    let mut connection = world.connect(&running, Some(&admin), Http::One).await;
    assert_eq!(connection.get(THINGS, &[]).await.code, 200);
}

#[tokio::test]
async fn a_certificate_without_its_key_does_not_pass_the_handshake() {
    let world = World::new();
    let running = world.start().await;
    let proxy = world.proxy();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stolen = with_key(&proxy, &world.proxies.client("thief"));
        // In TLS 1.3 the client is done before the server has looked at its certificate, so it may only learn of the
        // refusal when it asks for something.
        if let Ok(mut connection) = world.dial_by(version, &running, Some(stolen), Http::One).await {
            let answer = connection.send(Method::GET, THINGS, &JANE, Bytes::new()).await;
            assert!(answer.is_err(), "answered {:?}", answer.map(|answer| answer.code));
        }
        assert!(world.cluster.reviews("SubjectAccessReview").is_empty());
    }
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let own = world
            .dial_by(version, &running, Some(resolver(&proxy)), Http::Two)
            .await;
        assert_eq!(own.unwrap().get(THINGS, &JANE).await.code, 200);
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let world = World::new();
    let short = Duration::from_secs(2);
    let running = world
        .start_with(Limits {
            handshake_timeout: short,
            header_timeout: short,
            ..Limits::default()
        })
        .await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let Connection::One(mut sender) = world.connect(&running, None, Http::One).await else {
        panic!("not HTTP/1.1");
    };
    let closed = async {
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        while sender.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test]
async fn silent_connections_lock_nobody_out() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            connections: 1,
            unproven_connections: 2,
            ..Limits::default()
        })
        .await;
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
    let mut token = world.connect(&running, None, Http::One).await;
    let jane = [("authorization", "Bearer token-jane")];
    assert_eq!(token.get(THINGS, &jane).await.code, 200);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    // The newest is answered at once, the oldest had to go, and the proven have noticed nothing.
    let mut probe = world.connect(&running, None, Http::One).await;
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    let mut byte = [0];
    let gone = tokio::time::timeout(DEADLINE, silent[0].read(&mut byte))
        .await
        .unwrap();
    assert!(gone.is_err() || gone.is_ok_and(|read| read == 0));
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
    assert_eq!(token.get(THINGS, &jane).await.code, 200);
    let page = proxy.get("/metrics", &JANE).await.text;
    assert!(
        page.contains("\napiserver_dropped_connections_total 19\n"),
        "{page}"
    );
}

#[tokio::test]
async fn an_open_connection_is_refused_once_its_authority_is_gone() {
    let world = World::new();
    let running = world.start().await;
    let mut open = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(open.get(THINGS, &JANE).await.code, 200);

    let next = Authority::new("next");
    // A broken update changes nothing.
    let mut broken = published(None, Some(&next));
    broken.insert("requestheader-allowed-names".to_owned(), "[".to_owned());
    world.cluster.publish(Ok(broken));
    world.cluster.publish(Ok(published(None, Some(&next))));
    let refused = async {
        loop {
            let answer = open.get(THINGS, &JANE).await;
            if answer.code != 200 {
                return answer.code;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, refused).await.unwrap(), 401);
    let closed = open.send(Method::GET, THINGS, &JANE, Bytes::new()).await;
    assert!(closed.is_err(), "the client is made to come again");
    let newer = next.client("front-proxy-client");
    let mut again = world.connect(&running, Some(&newer), Http::Two).await;
    assert_eq!(again.get(THINGS, &JANE).await.code, 200);
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let world = World::new();
    let running = world.start().await;
    let other = Authority::new("other");
    world.store(&other.server(NAME));
    // The world's client trusts the first authority only: it is refused as soon as the new certificate is served.
    let refused = async {
        while world.dial(&running, None, Http::Two).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    assert!(!running.served.is_finished());
}

#[tokio::test]
async fn a_config_map_that_cannot_be_read_ends_the_start_and_says_what_to_do() {
    let world = World::new();
    let unreadable: [Content; 3] = [
        Err((
            403,
            "configmaps \"extension-apiserver-authentication\" is forbidden: User \"x\" cannot get",
        )),
        Err((404, "configmaps \"extension-apiserver-authentication\" not found")),
        Ok([("client-ca-file".to_owned(), "rubbish".to_owned())].into()),
    ];
    let mut told = Vec::new();
    for content in unreadable {
        world.cluster.publish(content);
        let error = world
            .builder()
            .bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap_err();
        told.push(error.to_string());
    }
    insta::assert_json_snapshot!(told);
}

#[tokio::test]
async fn with_tolerance_it_starts_unready_and_becomes_ready_by_itself() {
    let world = World::new();
    world.cluster.publish(Err((404, "not found")));
    let tolerant = Authentication {
        tolerate_lookup_failure: true,
        ..Authentication::default()
    };
    let running = start(world.builder().authentication(tolerant)).await;
    let mut probe = world.connect(&running, None, Http::One).await;
    let unready = probe.get("/readyz?verbose", &[]).await;
    assert_eq!(unready.code, 500, "{}", unready.text);
    assert!(
        unready.text.contains("[-]authentication-config-sync failed"),
        "{}",
        unready.text
    );
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 401);

    world.cluster.publish(Ok(published(None, Some(&world.proxies))));
    let ready = async {
        while probe.get("/readyz", &[]).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ready).await.unwrap();
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
}

#[tokio::test]
async fn reviews_that_fail_are_errors_and_are_asked_again() {
    let world = World::new();
    let running = world.start().await;
    world.cluster.fail_reviews(true);
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let answer = connection.get(THINGS, &JANE).await;
    assert_eq!(answer.code, 500);
    insta::assert_json_snapshot!(answer.json());
    world.cluster.fail_reviews(false);
    assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
}

/// Asks for a list over HTTP/2 and reads nothing of it.
async fn ask_and_not_read(world: &World, running: &Running) -> (http2::SendRequest<Full<Bytes>>, Incoming) {
    let stream = TcpStream::connect(running.address).await.unwrap();
    let tls = world.shake_as_proxy(stream, "h2").await;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(100)
        .handshake(TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("https://{NAME}{THINGS}"));
    let request = request.header(JANE[0].0, JANE[0].1).header(JANE[1].0, JANE[1].1);
    let request = request.body(Full::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    (sender, response.into_body())
}

#[tokio::test]
async fn one_request_too_many_is_sent_away_but_probes_and_masters_are_not() {
    let mut world = World::new();
    world.count = 1000;
    let running = world
        .start_with(Limits {
            requests_in_flight: 1,
            ..Limits::default()
        })
        .await;
    let unread = ask_and_not_read(&world, &running).await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let answer = connection.get(THINGS, &JANE).await;
    assert_eq!(answer.code, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(connection.get("/livez/ping", &JANE).await.code, 200);
    let aggregator = [
        ("x-remote-user", "system:kube-aggregator"),
        ("x-remote-group", "system:masters"),
    ];
    assert_eq!(
        connection.get("/apis/example.dev/v1", &aggregator).await.code,
        200
    );
    let mut probe = world.connect(&running, None, Http::One).await;
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    assert_eq!(probe.get(THINGS, &[]).await.code, 429);
    drop(unread);
    let free = async { while connection.get(THINGS, &JANE).await.code == 429 {} };
    tokio::time::timeout(DEADLINE, free).await.unwrap();
}

#[tokio::test]
async fn no_limit_and_the_largest_limit_are_limits_too() {
    let mut world = World::new();
    world.count = 1000;
    for requests_in_flight in [0, usize::MAX] {
        let running = world
            .start_with(Limits {
                requests_in_flight,
                connections: usize::MAX,
                unproven_connections: usize::MAX,
                ..Limits::default()
            })
            .await;
        let _unread = ask_and_not_read(&world, &running).await;
        let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
        assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
    }
}

/// A client that reads a byte now and then, and one that reads nothing, while a thousand others are served.
#[tokio::test]
async fn slow_clients_hold_up_nobody_and_are_given_up() {
    let mut world = World::new();
    // More than the sockets' buffers can hold.
    world.count = 40_000;
    let running = world
        .start_with(Limits {
            requests_in_flight: 3,
            request_timeout: Duration::from_secs(3),
            ..Limits::default()
        })
        .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(running.address).await.unwrap();
    let mut slow = world.shake_as_proxy(stream, "http/1.1").await;
    let request = format!("GET {THINGS} HTTP/1.1\r\nhost: {NAME}\r\nx-remote-user: jane\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let (sender, unread) = ask_and_not_read(&world, &running).await;

    let mut others = Connection::Two(sender);
    for at in 0..1000 {
        let answer = others.get("/apis/example.dev/v1/things/one", &JANE).await;
        assert_eq!(answer.code, 200);
        if at % 50 == 0 {
            let _ = slow.read(&mut [0]).await;
        }
    }
    // Their places are free again: only this request has one.
    let free = async {
        loop {
            let page = others.get("/metrics", &JANE).await.text;
            if page.contains("\napiserver_current_inflight_requests 1\n") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.unwrap();
    // The one ends with its connection, the other alone: its connection was the front proxy's, and goes on.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, slow.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(ended.is_err(), "{} bytes and then a proper end", rest.len());
    let ended = tokio::time::timeout(DEADLINE, unread.collect()).await.unwrap();
    assert!(ended.is_err());
    assert_eq!(others.get("/version", &JANE).await.code, 200);
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            request_timeout: Duration::from_hours(1),
            ..Limits::default()
        })
        .await;
    let answered = async {
        for (head, code) in [
            (format!("POST {THINGS}"), "405"),
            ("GET /livez".to_owned(), "200"),
        ] {
            let stream = TcpStream::connect(running.address).await.unwrap();
            let mut tls = world.shake_as_proxy(stream, "http/1.1").await;
            let head = format!(
                "{head} HTTP/1.1\r\nhost: {NAME}\r\nx-remote-user: jane\r\ncontent-length: 1000000\r\n\r\nbegun"
            );
            tls.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            tls.read_exact(&mut answer).await.unwrap();
            assert_eq!(str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {code}"));
        }
        let stream = TcpStream::connect(running.address).await.unwrap();
        let tls = TokioIo::new(world.shake_as_proxy(stream, "h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), tls).await.unwrap();
        tokio::spawn(connection);
        let endless = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let request = Request::post(format!("https://{NAME}/livez"))
            .header(JANE[0].0, JANE[0].1)
            .body(endless)
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 405);
    };
    tokio::time::timeout(DEADLINE, answered).await.unwrap();
}

#[tokio::test]
async fn headers_are_limited() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            header_bytes: 8192,
            ..Limits::default()
        })
        .await;
    let long = "x".repeat(10_000);
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        let answer = connection
            .send(Method::GET, THINGS, &[("x-long", &long), JANE[0]], Bytes::new())
            .await;
        let refused = answer.map_or(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16(), |answer| {
            answer.code
        });
        assert_eq!(refused, 431);
    }
}

#[tokio::test]
async fn users_may_have_thousands_of_groups() {
    let world = World::new();
    let running = world.start().await;
    let groups: Vec<_> = (0..3000)
        .map(|at| format!("group-of-some-length-{at:06}"))
        .collect();
    let mut headers = vec![JANE[0]];
    headers.extend(groups.iter().map(|group| ("x-remote-group", group.as_str())));
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        assert_eq!(connection.get(THINGS, &headers).await.code, 200, "{http:?}");
    }
    let asked = world.cluster.reviews("SubjectAccessReview");
    assert_eq!(asked[0]["spec"]["groups"].as_array().unwrap().len(), 3001);
}

#[tokio::test]
async fn acting_as_somebody_else_is_for_kube_apiserver_to_allow() {
    let world = World::new();
    let running = world.start().await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let headers = [JANE[0], ("impersonate-user", "root")];
    let answer = connection.get(THINGS, &headers).await;
    assert_eq!(answer.code, 403);
    assert!(
        answer
            .message()
            .contains("header impersonate-user is not understood here"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn an_answer_to_head_says_what_get_would() {
    let world = World::new();
    let running = world.start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        let path = "/openapi/v3";
        let get = connection.get(path, &JANE).await;
        let mut head = async |headers: &[(&str, &str)]| {
            connection
                .send(Method::HEAD, path, headers, Bytes::new())
                .await
                .unwrap()
        };
        let known = head(&[JANE[0], ("if-none-match", get.headers["etag"].to_str().unwrap())]).await;
        assert_eq!((known.code, known.headers.get("content-length")), (304, None));
        let length = get.text.len().to_string();
        assert_eq!(head(&JANE).await.headers["content-length"], length.as_str());
    }
}

#[tokio::test]
async fn connections_end_by_age_or_by_chance_and_without_http2_if_so_wanted() {
    let world = World::new();
    let ended = async |mut connection: Connection| {
        let ended = async {
            while connection
                .send(Method::GET, "/livez", &[], Bytes::new())
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.unwrap();
    };
    for limits in [
        Limits {
            connection_age: Some(Duration::from_millis(200)),
            ..Limits::default()
        },
        Limits {
            goaway_chance: 1.0,
            ..Limits::default()
        },
    ] {
        let running = world.start_with(limits).await;
        for http in [Http::One, Http::Two] {
            ended(world.connect(&running, None, http).await).await;
        }
    }
    let running = world
        .start_with(Limits {
            http2: false,
            connection_age: None,
            ..Limits::default()
        })
        .await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let tls = world
        .shake(&rustls::version::TLS13, stream, None, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn an_authority_newer_than_the_watch_costs_no_request() {
    let world = World::new();
    world.cluster.deafen();
    let running = world.start().await;
    let next = Authority::new("next");
    world.cluster.publish(Ok(published(None, Some(&next))));
    let newer = next.client("front-proxy-client");
    let mut connection = world.connect(&running, Some(&newer), Http::Two).await;
    assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
    // The one before is refused then, though the watch has said nothing.
    let mut old = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(old.get(THINGS, &JANE).await.code, 401);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            request_timeout: Duration::from_millis(200),
            ..Limits::default()
        })
        .await;
    world.cluster.hold();
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let late = connection.get("/apis/example.dev/v1/things/one", &JANE).await;
    assert_eq!(
        (late.code, late.json()["reason"].as_str()),
        (504, Some("Timeout"))
    );
}

#[tokio::test]
async fn open_requests_are_answered_after_shutdown_began() {
    let world = World::new();
    let mut running = world.start().await;
    world.cluster.hold();
    let mut connections = Vec::new();
    for http in [Http::One, Http::Two] {
        connections.push(world.connect(&running, Some(&world.proxy()), http).await);
    }
    let asking: Vec<_> = connections
        .into_iter()
        .zip([THINGS, "/apis/example.dev/v1/things/one"])
        .map(|(mut connection, path)| tokio::spawn(async move { connection.get(path, &JANE).await.code }))
        .collect();
    let asked = async {
        while world.cluster.reviews("SubjectAccessReview").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    running.shutdown.take().unwrap().send(()).unwrap();
    let unreachable = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, unreachable).await.unwrap();
    assert!(!running.served.is_finished());
    world.cluster.release();
    world.cluster.release();
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 200);
    }
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

/// Go's client does not try again when a new connection is closed under its first request.
#[tokio::test]
async fn whoever_has_just_come_is_answered_though_the_server_stops() {
    let world = World::new();
    let mut running = world.start().await;
    let mut shaken = world.connect(&running, Some(&world.proxy()), Http::One).await;
    let accepted = TcpStream::connect(running.address).await.unwrap();
    running.shutdown.take().unwrap().send(()).unwrap();
    let unreachable = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, unreachable).await.unwrap();
    let answer = shaken.get(THINGS, &JANE).await;
    assert_eq!(
        (answer.code, answer.headers["connection"].as_bytes()),
        (200, &b"close"[..])
    );
    let tls = world.shake_as_proxy(accepted, "http/1.1").await;
    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(Connection::One(sender).get(THINGS, &JANE).await.code, 200);
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn it_can_send_clients_elsewhere_until_those_in_flight_are_answered() {
    let world = World::new();
    let mut running = world
        .start_with(Limits {
            shutdown_send_retry_after: true,
            ..Limits::default()
        })
        .await;
    world.cluster.hold();
    let mut held = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let held = tokio::spawn(async move { held.get(THINGS, &JANE).await.code });
    let asked = async {
        while world.cluster.reviews("SubjectAccessReview").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    running.shutdown.take().unwrap().send(()).unwrap();
    let mut probe = world.connect(&running, None, Http::One).await;
    let unready = async { while probe.get("/readyz", &[]).await.code == 200 {} };
    tokio::time::timeout(DEADLINE, unready).await.unwrap();
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    for http in [Http::One, Http::Two] {
        let mut late = world.connect(&running, Some(&world.proxy()), http).await;
        let answer = late.get("/version", &JANE).await;
        assert_eq!(
            (answer.code, &answer.headers["retry-after"]),
            (429, &"5".parse().unwrap())
        );
        assert!(answer.message().contains("shutting down"), "{}", answer.text);
        assert_eq!(answer.headers.contains_key("connection"), http == Http::One);
        assert!(
            late.send(Method::GET, "/version", &JANE, Bytes::new())
                .await
                .is_err()
        );
    }
    world.cluster.release();
    assert_eq!(held.await.unwrap(), 200);
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn it_can_answer_on_while_clients_learn_that_it_ends() {
    let world = World::new();
    let mut running = world
        .start_with(Limits {
            shutdown_delay: Duration::from_hours(1),
            ..Limits::default()
        })
        .await;
    running.shutdown.take().unwrap().send(()).unwrap();
    let unready = async {
        let mut probe = world.connect(&running, None, Http::One).await;
        while probe.get("/readyz", &[]).await.code == 200 {}
    };
    tokio::time::timeout(DEADLINE, unready).await.unwrap();
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
}

#[tokio::test]
async fn metrics_are_for_those_who_may_read_them() {
    let world = World::new();
    let running = world.start().await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let joe = connection.get("/metrics", &[("x-remote-user", "joe")]).await;
    assert_eq!(joe.code, 403);
    assert_eq!(
        joe.message(),
        "forbidden: User \"joe\" cannot get path \"/metrics\""
    );
    for path in [THINGS, "/apis/example.dev/v1/nonsense", "/a/b/c"] {
        connection.get(path, &JANE).await;
    }
    connection
        .send(Method::from_bytes(b"BREW").unwrap(), "/tea", &JANE, Bytes::new())
        .await
        .unwrap();
    let page = connection.get("/metrics", &JANE).await;
    assert_eq!(page.code, 200);
    let requests: Vec<_> = page
        .text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total"))
        .collect();
    for line in [
        r#"apiserver_request_total{code="200",resource="things",verb="list"} 1"#,
        r#"apiserver_request_total{code="403",resource="",verb="get"} 1"#,
        r#"apiserver_request_total{code="404",resource="",verb="other"} 1"#,
        r#"apiserver_request_total{code="404",resource="",verb="list"} 1"#,
    ] {
        assert!(requests.contains(&line), "{line} is not in {requests:#?}");
    }
    for name in [
        "apiserver_request_duration_seconds_bucket{",
        "apiserver_current_inflight_requests 1",
        "apiserver_authentications_total{result=\"certificate\"} 6",
        "apiserver_delegated_authz_request_total{result=\"success\"}",
        "apiserver_denied_requests_total 1",
        "apiserver_connections 1",
        "apiserver_serving_certificate_expiration_timestamp_seconds 2.",
        "# TYPE apiserver_request_total counter",
    ] {
        assert!(page.text.contains(name), "{name} is not in {}", page.text);
    }
    let text = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(
        (&page.headers["content-type"], page.text.contains("# EOF")),
        (&text.parse().unwrap(), false)
    );
    let openmetrics = [JANE[0], ("accept", "application/openmetrics-text;version=1.0.0")];
    let page = connection.get("/metrics", &openmetrics).await;
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(page.headers["content-type"], openmetrics);
    assert!(page.text.ends_with("# EOF\n") && page.text.contains("# TYPE apiserver_request counter"));
}

#[tokio::test]
async fn files_may_say_whom_to_trust_without_the_cluster() {
    let world = World::new();
    world.cluster.publish(Err((403, "may not")));
    std::fs::write(world.path("proxy-ca.crt"), world.proxies.pem()).unwrap();
    let authorities = Authorities {
        front_proxy: Some(FrontProxyFiles::new(world.path("proxy-ca.crt"))),
        skip_lookup: true,
        ..Authorities::default()
    };
    let running = start(world.builder().authorities(authorities.clone())).await;
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
    assert_eq!(proxy.get("/readyz", &JANE).await.code, 200);
    let admin = world.clients.client("admin");
    let mut admin = world.connect(&running, Some(&admin), Http::Two).await;
    assert_eq!(admin.get(THINGS, &[]).await.code, 401);

    // A new authority in the file is seen as soon as somebody comes with it.
    let next = Authority::new("next");
    std::fs::write(world.path("proxy-ca.crt"), next.pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut newer = world
        .connect(&running, Some(&next.client("any")), Http::Two)
        .await;
    assert_eq!(newer.get(THINGS, &JANE).await.code, 200);

    std::fs::remove_file(world.path("proxy-ca.crt")).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let error = world
        .builder()
        .authorities(authorities)
        .bind(address)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("proxy-ca.crt"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_served_to_those_who_ask_for_its_name() {
    let world = World::new();
    let other = world.serving.server("other.example");
    std::fs::write(world.path("other.crt"), other.certificate_pem()).unwrap();
    std::fs::write(world.path("other.key"), other.key_pem()).unwrap();
    for names in [vec![], vec!["*.example".to_owned()]] {
        let tls = TlsOptions {
            minimum: TlsVersion::V1_3,
            by_name: vec![NamedCertificate {
                certificate: world.path("other.crt"),
                key: world.path("other.key"),
                names,
            }],
            ..TlsOptions::default()
        };
        let hsts = "max-age=31536000".parse().unwrap();
        let running = start(world.builder().tls(tls).strict_transport_security(hsts)).await;
        let mut roots = RootCertStore::empty();
        roots.add(world.serving.certificate()).unwrap();
        let config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(running.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let asked = ServerName::try_from("other.example").unwrap();
        let tls = connector.connect(asked, stream).await.unwrap();
        assert_eq!(
            tls.get_ref().1.peer_certificates().unwrap()[0].to_vec(),
            other.der()
        );
        let mut usual = world.connect(&running, None, Http::Two).await;
        let answer = usual.get("/livez", &[]).await;
        assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000");
        let older = world
            .dial_by(&rustls::version::TLS12, &running, None, Http::Two)
            .await;
        assert!(older.is_err());
    }
}

struct Note;

impl Kind for Note {
    fn write_cells(&self, _: &Value, cells: &mut JsonArray<'_>) {
        cells.string("");
    }
}

#[tokio::test]
async fn objects_are_created_and_watched_over_both_versions_of_http() {
    let world = World::new();
    let info = ResourceInfo::cluster_scoped("notes", "Note");
    let group = ApiGroup {
        name: "example.dev",
        versions: vec!["v1"],
        resources: vec![Arc::new(Memory::new("example.dev", info, Note, 100))],
    };
    let certificate = ServingCertificate::Files {
        certificate: world.path("tls.crt"),
        key: world.path("tls.key"),
    };
    let limits = Limits {
        body_bytes: 1000,
        requests_in_flight: 1,
        request_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let builder = Server::builder(world.cluster.client(), group, certificate).limits(limits);
    let mut running = start(builder).await;
    let notes = "/apis/example.dev/v1/notes";
    let mut asking = Vec::new();
    for http in [Http::One, Http::Two] {
        let mut watching = world.connect(&running, Some(&world.proxy()), http).await;
        let path = format!("{notes}?watch=true&resourceVersion=0");
        // Its connection ends when the server does.
        asking.push(tokio::spawn(async move { watching.get(&path, &JANE).await.text }));
    }
    // A watch takes no place, and lasts longer than a request may.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::One).await;
    let body = Bytes::from_static(br#"{"metadata":{"name":"x"}}"#);
    let created = connection.send(Method::POST, notes, &JANE, body).await.unwrap();
    assert_eq!(created.code, 201, "{}", created.text);
    let long = Bytes::from(vec![b' '; 1001]);
    let refused = connection.send(Method::POST, notes, &JANE, long).await.unwrap();
    assert_eq!(refused.code, 413);
    running.shutdown.take().unwrap().send(()).unwrap();
    for asking in asking {
        let told = tokio::time::timeout(DEADLINE, asking).await.unwrap().unwrap();
        assert!(
            told.contains(r#"{"type":"ADDED""#) && told.contains(r#""name":"x""#),
            "{told}"
        );
    }
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}
