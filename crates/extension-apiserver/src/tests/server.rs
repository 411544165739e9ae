//! The whole server over loopback: real TLS, both versions of HTTP, a scripted cluster behind it.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::certificates::{Authority, Leaf};
use super::cluster::{Cluster, Content};
use super::published;
use crate::json::{JsonArray, JsonObject};
use crate::{
    ApiGroup, Authentication, Item, Key, Limits, ListScope, Resource, ResourceInfo, Server,
    ServingCertificate, Status,
};

const NAME: &str = "metrics-api.system.svc";
const THINGS: &str = "/apis/example.dev/v1/things";
const DEADLINE: Duration = Duration::from_secs(20);

struct Things(ResourceInfo);

struct Thing;

impl Resource for Things {
    fn info(&self) -> &ResourceInfo {
        &self.0
    }

    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status> {
        if key.name != "one" {
            return Err(Status::not_found("example.dev", "things", key.name));
        }
        visit(&Thing);
        Ok(())
    }

    fn list(
        &self,
        _: ListScope<'_>,
        visit: &mut dyn FnMut(&dyn Item) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let _ = visit(&Thing);
        Ok(())
    }
}

impl Item for Thing {
    fn name(&self) -> &'static str {
        "one"
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

    fn write_fields(&self, _: &mut JsonObject<'_>) {}

    fn write_cells(&self, _: &mut JsonArray<'_>) {}
}

/// A server with its cluster and authorities.
struct World {
    serving: Authority,
    clients: Authority,
    proxies: Authority,
    cluster: Arc<Cluster>,
    directory: tempfile::TempDir,
}

struct Running {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
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
            resources: vec![Arc::new(Things(info))],
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
        let mut roots = RootCertStore::empty();
        roots.add(self.serving.certificate())?;
        let config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[version])?
            .with_root_certificates(roots);
        let mut config = match resolver {
            Some(resolver) => config.with_client_cert_resolver(resolver),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = match http {
            Http::One => vec![b"http/1.1".to_vec()],
            Http::Two => vec![b"h2".to_vec()],
        };
        let stream = TcpStream::connect(running.address).await?;
        let name = ServerName::try_from(NAME)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        assert_eq!(
            tls.get_ref().1.alpn_protocol().map(<[u8]>::len),
            Some(if http == Http::One { 8 } else { 2 })
        );
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
            connections: 1,
            handshake_timeout: short,
            header_timeout: short,
            ..Limits::default()
        })
        .await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let shaken = world.connect(&running, None, Http::One);
    let Connection::One(mut sender) = tokio::time::timeout(DEADLINE, shaken).await.unwrap() else {
        panic!("not HTTP/1.1");
    };
    // The second connection had to wait for the end of the first, and the third for that of the second.
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    let mut third = tokio::time::timeout(DEADLINE, world.connect(&running, None, Http::One))
        .await
        .unwrap();
    assert_eq!(third.get("/livez", &[]).await.code, 200);
    assert!(sender.ready().await.is_err());
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

#[tokio::test]
async fn one_request_too_many_is_sent_away_but_probes_and_masters_are_not() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            requests_in_flight: 0,
            ..Limits::default()
        })
        .await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let answer = connection.get(THINGS, &JANE).await;
    assert_eq!(answer.code, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    let unread = connection.get("/livez/ping", &JANE).await.code;
    assert_eq!(unread, 429, "what takes a review counts");
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
}

#[tokio::test]
async fn headers_and_bodies_are_limited() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            header_bytes: 8192,
            body_bytes: 10,
            ..Limits::default()
        })
        .await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::One).await;
    let long = Bytes::from_static(&[b'x'; 11]);
    let answer = connection.send(Method::GET, THINGS, &JANE, long).await.unwrap();
    assert_eq!(
        (answer.code, answer.json()["reason"].as_str()),
        (413, Some("RequestEntityTooLarge"))
    );

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
    tokio::time::timeout(DEADLINE, running.served)
        .await
        .unwrap()
        .unwrap();
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
        r#"apiserver_request_total{verb="list",resource="things",code="200"} 1"#,
        r#"apiserver_request_total{verb="get",resource="",code="403"} 1"#,
        r#"apiserver_request_total{verb="other",resource="",code="404"} 1"#,
        r#"apiserver_request_total{verb="list",resource="",code="404"} 1"#,
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
        "apiserver_serving_certificate_expiration_timestamp_seconds 2",
        "# EOF",
    ] {
        assert!(page.text.contains(name), "{name} is not in {}", page.text);
    }
}
