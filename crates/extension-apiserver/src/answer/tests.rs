//! Answers held against what metrics-server 0.9.0 answered to the same requests on a real cluster.

mod changes;
mod documents;
mod encodings;
mod lists;
mod paging;
mod replies;

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
