//! Answers held against what metrics-server 0.9.0 answered to the same requests on a real cluster.

mod changes;
mod encodings;
mod paging;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock, RwLock};

use futures::executor::block_on;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Api, refuse, respond};
use crate::body::Body;
use crate::health::HealthCheck;
use crate::json::{JsonArray, JsonObject};
use crate::options::{ApiGroup, VersionInfo};
use crate::protobuf::Message;
use crate::request::request_info;
use crate::resource::{Column, Item, Key, ListScope, Resource, ResourceInfo};
use crate::status::Status;

#[derive(Debug, Clone)]
struct Metrics {
    name: String,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    usage: [String; 2],
    container: String,
}

impl Metrics {
    fn key(&self) -> Key<'_> {
        Key {
            namespace: self.namespace.as_deref(),
            name: &self.name,
        }
    }
}

impl Item for Metrics {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
    fn visit_labels(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.labels.iter().for_each(|(key, value)| visit(key, value));
    }
    fn creation_timestamp(&self) -> Option<Timestamp> {
        "2026-11-23T16:42:10.4Z".parse().ok()
    }
    fn write_fields(&self, object: &mut JsonObject<'_>) {
        let usage = |object: &mut JsonObject<'_>| {
            object.object("usage", |usage| {
                usage.string("cpu", &self.usage[0]);
                usage.string("memory", &self.usage[1]);
            });
        };
        let pod = self.namespace.is_some();
        object.string(
            "timestamp",
            if pod {
                "2026-11-23T16:42:07Z"
            } else {
                "2026-11-23T16:42:02Z"
            },
        );
        object.string("window", self.window());
        if !pod {
            return usage(object);
        }
        object.array("containers", |containers| {
            containers.object(|object| {
                object.string("name", &self.container);
                usage(object);
            });
        });
    }
    fn write_protobuf(&self, message: &mut Message<'_>) {
        let usage = |message: &mut Message<'_>, field: u32| {
            for (key, value) in ["cpu", "memory"].into_iter().zip(&self.usage) {
                message.entry(field, key, |quantity| quantity.string(1, value));
            }
        };
        let pod = self.namespace.is_some();
        message.message(2, |time| {
            // 2026-11-23T16:42:02Z, and five seconds later.
            time.integer(1, if pod { 1_795_452_127 } else { 1_795_452_122 });
            time.integer(2, 0);
        });
        message.message(3, |duration| {
            let seconds: f64 = self.window().trim_end_matches('s').parse().unwrap();
            let nanos = std::time::Duration::from_secs_f64(seconds).as_nanos();
            duration.integer(1, nanos.try_into().unwrap());
        });
        if !pod {
            return usage(message, 4);
        }
        message.message(4, |container| {
            container.string(1, &self.container);
            usage(container, 2);
        });
    }
    fn write_cells(&self, cells: &mut JsonArray<'_>) {
        for cell in [&self.name, &self.usage[0], &self.usage[1]] {
            cells.string(cell);
        }
        cells.string(self.window());
    }
}

impl Metrics {
    fn window(&self) -> &'static str {
        match self.container.as_str() {
            "" => "20.04s",
            "etcd" => "15.001s",
            _ => "15.002s",
        }
    }
}

struct Memory {
    info: ResourceInfo,
    singular: &'static str,
    items: RwLock<Vec<Metrics>>,
    refusal: RwLock<Option<Status>>,
}

impl Resource for Memory {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status> {
        let items = self.items.read().unwrap();
        let item = items.iter().find(|item| item.key() == key);
        visit(item.ok_or_else(|| Status::not_found("", self.singular, key.name))?);
        Ok(())
    }

    fn list(
        &self,
        scope: ListScope<'_>,
        visit: &mut dyn FnMut(&dyn Item) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        if let Some(refusal) = self.refusal.read().unwrap().clone() {
            return Err(refusal);
        }
        for item in self.items.read().unwrap().iter() {
            let wanted = scope
                .namespace
                .is_none_or(|namespace| item.namespace() == Some(namespace));
            if wanted && scope.after.is_none_or(|after| item.key() > after) && visit(item).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn columns() -> [Column; 4] {
    [
        Column::NAME,
        Column::string("cpu", "quantity"),
        Column::string("memory", "quantity"),
        Column::string("Window", "duration"),
    ]
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn pod(name: &str, container: &str, usage: [&str; 2], pairs: &[(&str, &str)]) -> Metrics {
    Metrics {
        name: name.to_owned(),
        namespace: Some("kube-system".to_owned()),
        labels: labels(pairs),
        usage: usage.map(str::to_owned),
        container: container.to_owned(),
    }
}

/// What metrics-server says of that kind, without what the library adds.
fn schema_of(kind: &str) -> Value {
    static SAMPLE: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(&fixture("openapi-v3.json")).unwrap());
    let sample = &*SAMPLE;
    let name = format!("io.k8s.metrics.pkg.apis.metrics.v1beta1.{kind}");
    // References as a resource gives them: bare names, of the same version without a package.
    let schema = sample["components"]["schemas"][name].to_string();
    let schema = schema
        .replace(
            "#/components/schemas/io.k8s.metrics.pkg.apis.metrics.v1beta1.",
            "",
        )
        .replace("#/components/schemas/", "");
    let mut schema: Value = serde_json::from_str(&schema).unwrap();
    let fields = schema.as_object_mut().unwrap();
    fields.remove("x-kubernetes-group-version-kind");
    let properties = fields["properties"].as_object_mut().unwrap();
    for name in ["apiVersion", "kind", "metadata"] {
        properties.remove(name);
    }
    schema
}

/// The cluster that the samples were recorded on.
fn resources() -> (Arc<Memory>, Arc<Memory>) {
    let control_plane = |name: &str, usage: [&str; 2]| {
        let labels = [("component", name), ("tier", "control-plane")];
        pod(&format!("{name}-node-a"), name, usage, &labels)
    };
    let pods = vec![
        control_plane("etcd", ["22960488n", "30504Ki"]),
        control_plane("kube-apiserver", ["43223550n", "207388Ki"]),
        control_plane("kube-controller-manager", ["16354470n", "46052Ki"]),
        control_plane("kube-scheduler", ["6995157n", "19500Ki"]),
        pod(
            "metrics-server-666797b96f-p8lnm",
            "metrics-server",
            ["2634394n", "16840Ki"],
            &[("k8s-app", "metrics-server"), ("pod-template-hash", "666797b96f")],
        ),
    ];
    let node = Metrics {
        name: "node-a".to_owned(),
        namespace: None,
        labels: labels(&[
            ("beta.kubernetes.io/arch", "amd64"),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            ("kubernetes.io/hostname", "node-a"),
            ("kubernetes.io/os", "linux"),
        ]),
        usage: ["169415881n", "996108Ki"].map(str::to_owned),
        container: String::new(),
    };
    let pods = Memory {
        info: ResourceInfo::namespaced("pods", "PodMetrics")
            .columns(columns())
            .protobuf()
            .model_package("io.k8s.metrics.pkg.apis.metrics")
            .schema(schema_of("PodMetrics"))
            .model("ContainerMetrics", schema_of("ContainerMetrics")),
        singular: "pods",
        items: RwLock::new(pods),
        refusal: RwLock::default(),
    };
    let nodes = Memory {
        info: ResourceInfo::cluster_scoped("nodes", "NodeMetrics")
            .columns(columns())
            .protobuf()
            .model_package("io.k8s.metrics.pkg.apis.metrics")
            .schema(schema_of("NodeMetrics")),
        singular: "node",
        items: RwLock::new(vec![node]),
        refusal: RwLock::default(),
    };
    (Arc::new(pods), Arc::new(nodes))
}

fn api_of(versions: &[&'static str], pods: Arc<Memory>, nodes: Arc<Memory>) -> Api {
    let group = ApiGroup {
        name: "metrics.k8s.io",
        versions: versions.to_vec(),
        resources: vec![pods, nodes],
    };
    let version = VersionInfo {
        major: "0".to_owned(),
        git_version: "v0.1.0".to_owned(),
        ..VersionInfo::default()
    };
    let mut endpoints: BTreeMap<_, crate::server::Endpoint> = BTreeMap::new();
    endpoints.insert("/report", Box::new(|| Ok(br#"{"nodes":[]}"#.to_vec())));
    endpoints.insert(
        "/broken",
        Box::new(|| Err(Status::service_unavailable("not yet"))),
    );
    let checks = vec![
        HealthCheck::live("ping", || Ok(())),
        HealthCheck::ready("store/ready", || Err("no metrics to serve".to_owned())),
        HealthCheck::live("well", || Ok(())).quiet(),
        HealthCheck::ready("shutdown", || Ok(())),
    ];
    Api::new(group, version, endpoints, checks, CancellationToken::new())
}

fn api() -> Api {
    let (pods, nodes) = resources();
    api_of(&["v1", "v1beta1"], pods, nodes)
}

struct Answered {
    code: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    /// Kind, version and, of a refusal, message, in whatever form they came.
    fn told(&self) -> (String, String, String) {
        let json: Value = match self.header("content-type") {
            "application/json" => self.json(),
            "application/yaml" => serde_yaml::from_slice(&self.body).unwrap(),
            "application/vnd.kubernetes.protobuf" => {
                let unknown = encodings::unknown(&self.body);
                let type_meta = unknown.type_meta.unwrap();
                let message = match type_meta.kind() {
                    "Status" => encodings::decode::<encodings::meta::Status>(&self.body).message,
                    _ => None,
                };
                serde_json::json!({
                    "kind": type_meta.kind, "apiVersion": type_meta.api_version, "message": message,
                })
            }
            other => panic!("{other}"),
        };
        let field = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        (field("kind"), field("apiVersion"), field("message"))
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn read(response: Response<Body>) -> Answered {
    let (parts, body) = response.into_parts();
    Answered {
        code: parts.status,
        headers: parts.headers,
        body: block_on(body.collect()).unwrap().to_bytes().to_vec(),
    }
}

fn start(api: &Api, request: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let (method, uri) = request.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let (parts, ()) = builder.body(()).unwrap().into_parts();
    respond(
        api,
        &request_info(&parts.method, &parts.uri),
        &parts,
        &bytes::Bytes::new(),
    )
}

fn ask(api: &Api, request: &str, headers: &[(&str, &str)]) -> Answered {
    read(start(api, request, headers))
}

fn fixture(name: &str) -> String {
    let path = format!(
        "{}/tests/fixtures/metrics-server-0.9/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).unwrap()
}

/// The samples were asked for with curl, which gets indented JSON. They are met byte for byte.
#[test]
fn replies_are_those_of_metrics_server() {
    const BETA: &str = "/apis/metrics.k8s.io/v1beta1";
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let cases = [
        ("nodes.json", "GET", "/nodes", "*/*", 200),
        ("node.json", "GET", "/nodes/node-a", "*/*", 200),
        ("node-404.json", "GET", "/nodes/none", "*/*", 404),
        ("nodes.table.json", "GET", "/nodes", TABLE, 200),
        ("pods.json", "GET", "/pods", "*/*", 200),
        (
            "pods.json",
            "GET",
            "/namespaces/kube-system/pods",
            "application/json,application/vnd.kubernetes.protobuf",
            200,
        ),
        ("pods.json", "GET", "/pods/", "application/json;stream=watch", 200),
        ("pods-limit.json", "GET", "/pods?limit=0", "*/*", 200),
        (
            "pods-selector.json",
            "GET",
            "/pods?labelSelector=tier%3Dcontrol-plane",
            "*/*",
            200,
        ),
        (
            "pods-field.json",
            "GET",
            "/pods?fieldSelector=metadata.name%3Detcd-node-a",
            "*/*",
            200,
        ),
        (
            "pods-badfield.json",
            "GET",
            "/pods?fieldSelector=spec.x%3D1",
            "*/*",
            400,
        ),
        (
            "pods-badselector.json",
            "GET",
            "/pods?labelSelector=!!",
            "*/*",
            400,
        ),
        ("pods-watch.json", "GET", "/pods?watch=true", "*/*", 405),
        (
            "delete.json",
            "DELETE",
            "/namespaces/kube-system/pods/etcd-node-a",
            "*/*",
            405,
        ),
        ("delete.json", "POST", "/nodes", "text/html", 405),
        ("delete.json", "HEAD", "/nodes", "*/*", 405),
        (
            "pod.json",
            "GET",
            "/namespaces/kube-system/pods/etcd-node-a",
            "*/*",
            200,
        ),
        (
            "pod-404.json",
            "GET",
            "/namespaces/kube-system/pods/none",
            "*/*",
            404,
        ),
        ("pods.table.json", "GET", "/pods", TABLE, 200),
        ("metadata-only.json", "GET", "/pods", METADATA, 200),
        ("pods-406.json", "GET", "/pods", "text/html", 406),
        ("pods-cbor-406.json", "GET", "/pods", "application/cbor", 406),
        ("resources.json", "GET", "", "*/*", 200),
        ("resources.json", "GET", "/", "application/json", 200),
    ];
    let api = api();
    for (sample, method, path, accept, code) in cases {
        let request = format!("{method} {BETA}{path}");
        let headers = [
            ("accept", accept),
            ("user-agent", "curl/8.14.1"),
            ("audit-id", "706cf266"),
        ];
        let answered = ask(&api, &request, &headers);
        assert_eq!(answered.text(), fixture(sample), "{request}");
        assert_eq!(answered.code, code, "{request}");
        assert_eq!(answered.header("content-type"), "application/json", "{request}");
        assert_eq!(answered.header("cache-control"), "no-cache, private", "{request}");
        assert_eq!(answered.header("audit-id"), "706cf266", "{request}");
        assert_eq!(answered.headers.len(), 3, "{request}: {:?}", answered.headers);

        let headers = [("accept", accept)];
        let compact = ask(&api, &request, &headers);
        let minimal = answered.json().to_string().len() + 1;
        assert_eq!(compact.body.len(), minimal, "{request}: compact, and a newline");
        assert_eq!(compact.json(), answered.json(), "{request}");
        let stable = ask(&api, &request.replace("v1beta1", "v1"), &headers);
        let renamed = compact
            .text()
            .replace("metrics.k8s.io/v1beta1", "metrics.k8s.io/v1");
        assert_eq!(stable.text(), renamed, "{request}");
    }
    let (pods, nodes) = resources();
    let beta_only = api_of(&["v1beta1"], pods, nodes);
    let group = ask(
        &beta_only,
        "GET /apis/metrics.k8s.io",
        &[("user-agent", "curl/8")],
    );
    assert_eq!(group.text(), fixture("group.json"));
}

#[test]
fn paths_that_lead_nowhere_are_not_found() {
    let api = api();
    for path in [
        "/api",
        "/api/v1/pods",
        "/apis/other.k8s.io",
        "/apis/other.k8s.io/v1/pods",
        "/apis/metrics.k8s.io/v2",
        "/apis/metrics.k8s.io/v2/pods",
        "/apis/metrics.k8s.io/v1/things",
        "/apis/metrics.k8s.io/v1/pods/etcd-node-a",
        "/apis/metrics.k8s.io/v1/namespaces",
        "/apis/metrics.k8s.io/v1/namespaces/kube-system",
        "/apis/metrics.k8s.io/v1/namespaces/kube-system/nodes",
        "/apis/metrics.k8s.io/v1/namespaces/kube-system/nodes/node-a",
        "/apis/metrics.k8s.io/v1/namespaces//pods",
        "/apis/metrics.k8s.io/v1/namespaces//pods/etcd-node-a",
        "/apis/metrics.k8s.io/v1//pods",
        "/apis/metrics.k8s.io/v1/pods//",
        "//apis/metrics.k8s.io/v1/pods",
        "/apis/metrics.k8s.io/v1/nodes/node-a/status",
        "/apis/metrics.k8s.io/v1/watch/pods",
        "/apis/metrics.k8s.io/v1/proxy/nodes/node-a",
        "/openapi",
        "/openapi/v4",
        "/openapi/v3/apis/metrics.k8s.io/v2",
        "/readyz/none",
        "/livez/shutdown",
        "/report/more",
        "/metrics/more",
    ] {
        for method in ["GET", "DELETE"] {
            let answered = ask(&api, &format!("{method} {path}"), &[]);
            let code = answered.code.as_u16();
            assert!(
                code == 404 || (method == "DELETE" && code == 405),
                "{method} {path}: {code}"
            );
            assert_eq!(answered.json()["code"], code, "{method} {path}");
        }
    }
}

#[test]
fn forms_are_negotiated_as_by_kube_apiserver() {
    let api = api();
    let outcome = |path: &str, accept: &str| {
        let answered = ask(
            &api,
            &format!("GET /apis/metrics.k8s.io/v1{path}"),
            &[("accept", accept)],
        );
        let (kind, api_version, message) = answered.told();
        let media = answered.header("content-type").trim_start_matches("application/");
        if answered.code == 200 {
            format!("{media}: {api_version} {kind}")
        } else {
            format!("{media}: {} {message}", answered.code.as_u16())
        }
    };
    let mut outcomes = Vec::new();
    for accept in [
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
        "application/json; as=Table; v=v9; g=meta.k8s.io, application/json",
        "application/json;as=Table;v=v9;g=meta.k8s.io",
        "application/json;as=Other;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io,application/json;q=0.9",
        "application/vnd.kubernetes.protobuf",
        "application/vnd.kubernetes.protobuf, */*",
        "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json",
        "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf, application/json",
        "application/yaml",
        "application/yaml;as=Table;v=v1;g=meta.k8s.io",
        "application/yaml;q=0.5,application/json;q=0.4",
        "application/json;q=0.1,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.2",
        "application/json;q=0",
        "application/*",
        "application/json;stream=other",
        "*",
        "application",
        ",",
    ] {
        outcomes.push(format!(
            "{accept}\n  list: {}\n  get:  {}",
            outcome("/pods", accept),
            outcome("/nodes/node-a", accept)
        ));
    }
    insta::assert_snapshot!(outcomes.join("\n"));
}

#[test]
fn table_rows_carry_what_is_asked_for() {
    let api = api();
    let table = [("accept", "application/json;as=Table;v=v1beta1;g=meta.k8s.io")];
    let row = |include: &str| {
        let request = format!("GET /apis/metrics.k8s.io/v1/nodes/node-a?includeObject={include}");
        ask(&api, &request, &table).json()
    };
    assert_eq!(row("None")["rows"][0]["object"], Value::Null);
    assert_eq!(row("None")["rows"][0].as_object().unwrap().len(), 2);
    assert_eq!(
        row("Metadata")["rows"][0]["object"]["apiVersion"],
        "meta.k8s.io/v1beta1"
    );
    assert_eq!(row(""), row("Metadata"));
    let whole = ask(&api, "GET /apis/metrics.k8s.io/v1/nodes/node-a", &[]).json();
    assert_eq!(row("Object")["rows"][0]["object"], whole);
    assert_eq!(
        row("x")["message"],
        "Unable to convert to Table as requested: includeObject: Invalid value: \"x\": must be 'Metadata', 'Object', \
         'None', or empty"
    );
    let empty = ask(&api, "GET /apis/metrics.k8s.io/v1/namespaces/none/pods", &table).json();
    assert_eq!(empty["rows"], serde_json::json!([]));
    assert_eq!(empty["columnDefinitions"].as_array().unwrap().len(), 4);
}

#[test]
fn discovery_is_kept_by_its_tag() {
    let api = api();
    let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let accept = format!("{content_type},application/json");
    let first = ask(&api, "GET /apis", &[("accept", &accept)]);
    assert_eq!(first.header("content-type"), content_type);
    assert_eq!(first.header("cache-control"), "public");
    assert_eq!(first.header("vary"), "Accept");
    insta::assert_json_snapshot!("aggregated", first.json());
    let known = [
        ("accept", accept.as_str()),
        ("if-none-match", first.header("etag")),
    ];
    let second = ask(&api, "GET /apis", &known);
    assert_eq!((second.code.as_u16(), second.body.len()), (304, 0));
    let older = accept.replace("v=v2", "v=v2beta1");
    let older = ask(&api, "GET /apis", &[("accept", &older)]);
    assert_eq!(older.json()["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(older.json()["items"], first.json()["items"]);
    insta::assert_json_snapshot!("groups", ask(&api, "GET /apis", &[]).json());
    assert_eq!(ask(&api, "GET /apis", &[("accept", "text/html")]).code, 406);
}

#[test]
fn openapi_describes_every_path_and_resolves() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let api = api();
    let root = ask(&api, "GET /openapi/v3", &[]).json();
    let url = root["paths"]["apis/metrics.k8s.io/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let third = ask(&api, &format!("GET {url}"), &[]);
    assert!(third.header("cache-control").starts_with("public, immutable"));
    let moved = ask(&api, "GET /openapi/v3/apis/metrics.k8s.io/v1?hash=OLD", &[]);
    assert_eq!((moved.code.as_u16(), moved.header("location")), (301, url));
    let second = ask(&api, "GET /openapi/v2", &[]);
    for document in [third.json(), second.json()] {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
    let protobuf = [(
        "accept",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    )];
    assert_eq!(ask(&api, "GET /openapi/v2", &protobuf).code, 406);
    assert_eq!(second.json()["paths"].as_object().unwrap().len(), 12);
    insta::assert_json_snapshot!(
        "openapi_v2_pods",
        second.json()["paths"]["/apis/metrics.k8s.io/v1/pods"]["get"]
    );
    let definitions = &second.json()["definitions"];
    let pods = &definitions["io.k8s.metrics.pkg.apis.metrics.v1.PodMetrics"]["properties"];
    assert_eq!(
        pods["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let quantity = &definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(
        (&quantity["type"], &quantity["oneOf"]),
        (&"string".into(), &Value::Null)
    );
    let text = second.text();
    assert!(!text.contains("allOf") && !text.contains("components"));
}

#[test]
fn openapi_is_what_metrics_server_describes() {
    let mut expected: Value = serde_json::from_str(&fixture("openapi-v3.json")).unwrap();
    let mut found = ask(&api(), "GET /openapi/v3/apis/metrics.k8s.io/v1beta1", &[]).json();
    // Where it comes from is not what it says.
    assert_eq!(found["info"].take()["title"], "metrics.k8s.io");
    expected["info"].take();
    for kind in ["Node", "Pod"] {
        let items = format!(
            "/components/schemas/io.k8s.metrics.pkg.apis.metrics.v1beta1.{kind}MetricsList/properties/items/description"
        );
        *expected.pointer_mut(&items).unwrap() = format!("List of {kind}Metrics.").into();
    }
    for part in ["paths", "components"] {
        for (name, expected) in expected[part].as_object().unwrap() {
            assert_eq!(&found[part][name], expected, "{part} {name}");
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn health_says_which_check_failed_but_not_why() {
    let api = api();
    let report = |request: &str| {
        let answered = ask(&api, request, &[]);
        assert_eq!(
            answered.header("content-type"),
            "text/plain; charset=utf-8",
            "{request}"
        );
        assert_eq!(answered.header("x-content-type-options"), "nosniff", "{request}");
        (answered.code.as_u16(), answered.text().to_owned())
    };
    let ok = || (200, "ok".to_owned());
    assert_eq!(report("GET /livez"), ok());
    assert_eq!(report("GET /healthz/"), ok());
    assert_eq!(report("GET /readyz/ping"), ok());
    assert_eq!(report("GET /readyz?exclude=store/ready"), ok());
    assert_eq!(
        report("GET /livez?verbose"),
        (200, "[+]ping ok\nlivez check passed\n".to_owned())
    );
    let failed = "[+]ping ok\n[-]store/ready failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n";
    assert_eq!(report("GET /readyz"), (500, failed.to_owned()));
    let excluded = "[+]ping ok\n[+]store/ready excluded: ok\n[+]shutdown ok\n\
                    warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n";
    let request = "GET /readyz?verbose=true&exclude=store%2Fready&exclude=b&exclude=a&exclude=b";
    assert_eq!(report(request), (200, excluded.to_owned()));
    let reason = "internal server error: no metrics to serve\n";
    assert_eq!(report("GET /readyz/store/ready"), (500, reason.to_owned()));
    assert_eq!(ask(&api, "POST /readyz", &[]).code, 405);
}

#[test]
fn other_documents_are_served() {
    let api = api();
    let version = ask(&api, "GET /version", &[]);
    assert!(
        version.text().starts_with("{\n  \"major\": \"0\",\n"),
        "{}",
        version.text()
    );
    assert_eq!(
        ask(&api, "GET /report", &[]).json(),
        serde_json::json!({"nodes": []})
    );
    assert_eq!(ask(&api, "GET /broken", &[]).code, 503);
    let paths = ask(&api, "GET /", &[]).json();
    assert!(
        paths["paths"]
            .as_array()
            .unwrap()
            .contains(&"/apis/metrics.k8s.io/v1".into())
    );
    let busy = read(refuse(&Status::too_many_requests(1), &HeaderMap::new()));
    assert_eq!((busy.code.as_u16(), busy.header("retry-after")), (429, "1"));
}

#[test]
fn parameters_that_do_not_go_together_are_refused() {
    let path = "GET /apis/metrics.k8s.io/v1/pods?resourceVersionMatch=Exact";
    for (parameters, code) in [("", 422), ("&watch=true", 422), ("&resourceVersion=1", 200)] {
        let answered = ask(&api(), &format!("{path}{parameters}"), &[]);
        assert_eq!(answered.code, code, "{parameters}");
    }
}

#[test]
fn numbers_among_the_parameters_are_checked() {
    let answered = ask(
        &api(),
        "GET /apis/metrics.k8s.io/v1/pods?timeoutSeconds=9223372036854775808",
        &[],
    );
    let message = "strconv.ParseInt: parsing \"9223372036854775808\": value out of range";
    assert_eq!(answered.json()["message"], message);
    let answered = ask(&api(), "GET /apis/metrics.k8s.io/v1/pods?limit=many", &[]);
    assert_eq!(
        answered.json()["message"],
        "strconv.ParseInt: parsing \"many\": invalid syntax"
    );
    assert_eq!(answered.code, 400);
}

fn many(count: usize) -> Vec<Metrics> {
    let pod = |at: usize| Metrics {
        name: format!("pod-{at:06}"),
        namespace: Some(format!("ns-{}", at * 7 / count)),
        labels: labels(&[("third", if at.is_multiple_of(3) { "yes" } else { "no" })]),
        usage: ["1n", "1Ki"].map(str::to_owned),
        container: "etcd".to_owned(),
    };
    (0..count).map(pod).collect()
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_large_list_comes_in_parts_and_holds_no_lock_between_them() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(3000);
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let mut response = start(&api, "GET /apis/metrics.k8s.io/v1/pods", &[]);
    assert_eq!(response.body().size_hint().exact(), None);
    let mut body = Vec::new();
    let mut parts = 0;
    while let Some(frame) = block_on(response.body_mut().frame()) {
        let part = frame.unwrap().into_data().unwrap();
        assert!(part.len() < 70 * 1024);
        body.extend_from_slice(&part);
        parts += 1;
        // Only possible while the list holds no lock. What was the list's last object is gone when it goes on.
        let mut items = pods.items.write().unwrap();
        let last = String::from_utf8_lossy(&part)
            .rfind("pod-")
            .map(|at| part[at..at + 10].to_vec());
        items.retain(|item| Some(item.name.as_bytes()) > last.as_deref());
    }
    assert!(parts > 5, "{parts}");
    let list: Value = serde_json::from_slice(&body).unwrap();
    let expected: Vec<_> = many(3000).into_iter().map(|pod| pod.name).collect();
    assert_eq!(names(&list), expected);
}

#[test]
fn a_selector_that_matches_nothing_lets_others_have_their_turn() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(50_000);
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let request = "GET /apis/metrics.k8s.io/v1/pods?labelSelector=third,none";
    let mut response = start(&api, request, &[]);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let (mut pauses, mut body) = (0, Vec::new());
    loop {
        // Only possible while the list holds no lock.
        drop(pods.items.write().unwrap());
        match std::pin::Pin::new(response.body_mut()).poll_frame(&mut context) {
            std::task::Poll::Pending => pauses += 1,
            std::task::Poll::Ready(Some(frame)) => body.extend(frame.unwrap().into_data().unwrap()),
            std::task::Poll::Ready(None) => break,
        }
    }
    assert!(pauses >= 5, "{pauses}");
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(list["items"], serde_json::json!([]));
}

#[test]
fn a_list_that_cannot_go_on_breaks_off() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(1000);
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let mut response = start(&api, "GET /apis/metrics.k8s.io/v1/pods", &[]);
    assert!(block_on(response.body_mut().frame()).unwrap().is_ok());
    let refusal = Status::service_unavailable("the store is gone");
    *pods.refusal.write().unwrap() = Some(refusal.clone());
    assert_eq!(
        block_on(response.body_mut().frame()).unwrap().unwrap_err(),
        refusal
    );
    assert!(block_on(response.body_mut().frame()).is_none());
    assert_eq!(ask(&api, "GET /apis/metrics.k8s.io/v1/pods", &[]).code, 503);
}

#[test]
fn fields_select_by_namespace() {
    let api = api();
    let found = |path: &str, namespace: &str| {
        let request =
            format!("GET /apis/metrics.k8s.io/v1/{path}?fieldSelector=metadata.namespace%3D{namespace}");
        ask(&api, &request, &[]).json()["items"].as_array().unwrap().len()
    };
    assert_eq!(found("pods", "kube-system"), 5);
    assert_eq!(found("pods", "default"), 0);
    assert_eq!(found("namespaces/kube-system/pods", "default"), 0);
    assert_eq!(found("nodes", "kube-system"), 0);
    assert_eq!(found("nodes", ""), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn lists_are_whole_whatever_is_selected(
        count in 1_usize..700,
        namespace in 0_usize..8,
        labels: bool,
        pretty: bool,
        form in 0..3,
    ) {
        let (pods, nodes) = resources();
        *pods.items.write().unwrap() = many(count);
        let api = api_of(&["v1"], pods, nodes);
        let place = if namespace == 7 { String::new() } else { format!("/namespaces/ns-{namespace}") };
        let selector = if labels { "third=yes" } else { "" };
        let accept = match form {
            0 => "application/json",
            1 => "application/json;as=Table;v=v1;g=meta.k8s.io",
            _ => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        };
        let request = format!("GET /apis/metrics.k8s.io/v1{place}/pods?pretty={pretty}&labelSelector={selector}");
        let mut list = ask(&api, &request, &[("accept", accept)]).json();
        if form == 1 {
            let rows = list["rows"].as_array_mut().unwrap().drain(..);
            list["items"] = rows.map(|mut row| row["object"].take()).collect();
        }
        let expected = many(count).into_iter().filter(|pod| {
            (namespace == 7 || pod.namespace == Some(format!("ns-{namespace}")))
                && (!labels || pod.labels["third"] == "yes")
        });
        proptest::prop_assert_eq!(names(&list), expected.map(|pod| pod.name).collect::<Vec<_>>());
    }

    #[test]
    fn no_request_makes_it_panic(path in "[ -~]{0,60}", accept in "[ -~]{0,60}", query in "[ -~]{0,60}") {
        let uri = format!("/apis/metrics.k8s.io/v1/{path}?{query}");
        let builder = Request::builder().uri(uri).header("accept", accept);
        if let Ok(request) = builder.body(()) {
            let (parts, ()) = request.into_parts();
            let info = request_info(&parts.method, &parts.uri);
            let _ = read(respond(&api(), &info, &parts, &bytes::Bytes::new()));
        }
    }
}
