use std::{fmt::Write as _, ops::ControlFlow, sync::Arc};

use extension_apiserver::{Item, Key, ListScope, Resource, json::JsonObject};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Value, json};

use super::*;
use crate::{
    decode::decode,
    index::{NodeIndex, PodIndex},
    names::Names,
    store::{Store, series::Rules},
    time::{Monotonic, MonotonicClock},
};

/// What a real kubelet answered.
const RECORDED: &str = include_str!("../../tests/fixtures/metrics-resource.prom");
const NODE: &[u8] = include_bytes!("../../tests/fixtures/node.json");

/// What that kubelet would have answered 15.001 s later, each container having used 0.344430999 s of CPU time more.
fn later() -> String {
    let mut text = String::new();
    for line in RECORDED.lines() {
        let fields: Vec<_> = line.rsplitn(3, ' ').collect();
        match fields[..] {
            [time, value, series] if line.contains("_cpu_") && !line.starts_with('#') => {
                let value = value.parse::<f64>().unwrap() + 0.344_430_999;
                writeln!(
                    text,
                    "{series} {value:.9} {}",
                    time.parse::<i64>().unwrap() + 15_001
                )
                .unwrap();
            }
            [time, value, series] if line.contains("_memory_") && !line.starts_with('#') => {
                writeln!(text, "{series} {value} {}", time.parse::<i64>().unwrap() + 15_001).unwrap();
            }
            _ => writeln!(text, "{line}").unwrap(),
        }
    }
    text
}

struct Cluster {
    store: Arc<Store>,
    nodes: Arc<NodeIndex>,
    pods: Arc<PodIndex>,
    clock: MonotonicClock,
}

impl Cluster {
    /// The recorded node, scraped twice, with a second node and two pods that have no usage.
    fn recorded() -> Self {
        let names = Names::default();
        let cluster = Self {
            store: Arc::new(Store::new(Rules { resolution: 15_000 }, names.clone())),
            nodes: Arc::new(NodeIndex::new(names.clone())),
            pods: Arc::new(PodIndex::new(names)),
            clock: MonotonicClock::start(),
        };
        let mut node: Node = serde_json::from_slice(NODE).unwrap();
        cluster.nodes.apply(&node);
        node.metadata.name = Some("node-b".to_owned());
        cluster.nodes.apply(&node);
        for (namespace, name, labels) in [
            (
                "kube-system",
                "etcd-node-a",
                json!({"component": "etcd", "tier": "control-plane"}),
            ),
            (
                "kube-system",
                "kube-apiserver-node-a",
                json!({"component": "kube-apiserver", "tier": "control-plane"}),
            ),
            (
                "kube-system",
                "metrics-server-666797b96f-p8lnm",
                json!({"k8s-app": "metrics-server"}),
            ),
            ("kube-system", "no-usage", json!({})),
            ("default", "no-usage", json!({})),
        ] {
            cluster.run(namespace, name, &labels);
        }
        cluster.scrape(RECORDED);
        cluster.scrape(&later());
        cluster
    }

    fn run(&self, namespace: &str, name: &str, labels: &Value) {
        let meta = json!({"namespace": namespace, "name": name, "labels": labels, "uid": name, "creationTimestamp": "2026-11-23T16:37:52Z"});
        self.pods
            .apply(&serde_json::from_value::<ObjectMeta>(meta).unwrap(), Monotonic(0));
    }

    fn scrape(&self, answer: &str) {
        let batch = decode(answer.as_bytes(), UnixMillis(0)).unwrap();
        self.store.put("node-a", &batch, self.clock.now());
    }

    fn node_metrics(&self) -> NodeMetrics {
        NodeMetrics::new(Arc::clone(&self.store), Arc::clone(&self.nodes), self.clock)
    }

    fn pod_metrics(&self) -> PodMetrics {
        PodMetrics::new(Arc::clone(&self.store), Arc::clone(&self.pods), self.clock)
    }
}

fn metadata(object: &mut JsonObject<'_>, item: &dyn Item) {
    object.object("metadata", |metadata| {
        metadata.string("name", item.name());
        if let Some(namespace) = item.namespace() {
            metadata.string("namespace", namespace);
        }
        if let Some(created) = item.creation_timestamp() {
            metadata.time("creationTimestamp", created);
        }
        metadata.object("labels", |labels| {
            item.visit_labels(&mut |key, value| labels.string(key, value));
        });
    });
}

/// An item as it stands in a list, without what the library frames it with.
fn text(item: &dyn Item) -> String {
    let mut out = Vec::new();
    JsonObject::write(&mut out, |object| {
        metadata(object, item);
        item.write_fields(object);
    });
    String::from_utf8(out).unwrap()
}

fn object(item: &dyn Item) -> Value {
    serde_json::from_str(&text(item)).unwrap()
}

fn cells(item: &dyn Item) -> Value {
    let mut out = Vec::new();
    JsonArray::write(&mut out, |cells| item.write_cells(cells));
    serde_json::from_slice(&out).unwrap()
}

fn list<T>(resource: &dyn Resource, scope: ListScope<'_>, show: impl Fn(&dyn Item) -> T) -> Vec<T> {
    let mut items = Vec::new();
    let listed = resource.list(scope, &mut |item| {
        items.push(show(item));
        ControlFlow::Continue(())
    });
    listed.unwrap();
    items
}

fn names(resource: &dyn Resource, scope: ListScope<'_>) -> Vec<Value> {
    list(resource, scope, |item| {
        format!("{}/{}", item.namespace().unwrap_or("-"), item.name()).into()
    })
}

/// A value with every text in it replaced by its kind: what has to be alike between two servers.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| *name != "labels")
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(text) if text.ends_with('Z') => "time".into(),
        Value::String(text)
            if text.ends_with('s')
                && text.parse::<f64>().is_err()
                && text.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            "duration".into()
        }
        Value::String(text) if text.starts_with(|c: char| c.is_ascii_digit()) => "quantity".into(),
        Value::String(_) => "text".into(),
        other => other.clone(),
    }
}

#[test]
fn nodes_are_answered_from_two_real_samples() {
    let cluster = Cluster::recorded();
    insta::assert_snapshot!(list(&cluster.node_metrics(), ListScope::default(), text).join("\n"));
}

#[test]
fn pods_are_answered_from_two_real_samples() {
    let cluster = Cluster::recorded();
    insta::assert_snapshot!(list(&cluster.pod_metrics(), ListScope::default(), text).join("\n"));
}

#[test]
fn objects_have_the_shape_of_metrics_servers() {
    let cluster = Cluster::recorded();
    let nodes: Value =
        serde_json::from_slice(include_bytes!("../../tests/fixtures/metrics-server-nodes.json")).unwrap();
    let pods: Value =
        serde_json::from_slice(include_bytes!("../../tests/fixtures/metrics-server-pods.json")).unwrap();
    let ours = list(&cluster.node_metrics(), ListScope::default(), object);
    assert_eq!(shape(&ours[0]), shape(&nodes["items"][0]));
    let ours = list(&cluster.pod_metrics(), ListScope::default(), object);
    assert_eq!(shape(&ours[0]), shape(&pods["items"][0]));
}

#[test]
fn tables_have_the_columns_and_cells_of_metrics_servers() {
    let cluster = Cluster::recorded();
    let nodes: Value = serde_json::from_slice(include_bytes!(
        "../../tests/fixtures/metrics-server-nodes.table.json"
    ))
    .unwrap();
    let pods: Value = serde_json::from_slice(include_bytes!(
        "../../tests/fixtures/metrics-server-pods.table.json"
    ))
    .unwrap();
    for (resource, theirs) in [
        (&cluster.node_metrics() as &dyn Resource, nodes),
        (&cluster.pod_metrics(), pods),
    ] {
        assert_eq!(
            serde_json::to_value(&resource.info().columns).unwrap(),
            theirs["columnDefinitions"]
        );
        let ours = list(resource, ListScope::default(), cells);
        assert_eq!(shape(&ours[0]), shape(&theirs["rows"][0]["cells"]));
    }
}

/// What an item writes as protobuf after its metadata, read by the messages of `k8s.io/metrics`.
fn decoded<T: prost::Message + Default>(item: &dyn Item) -> T {
    let mut out = Vec::new();
    item.write_protobuf(&mut Message::new(&mut out));
    T::decode(out.as_slice()).unwrap()
}

#[test]
fn protobuf_says_what_json_says() {
    use k8s_pb::metrics::pkg::apis::metrics::v1beta1 as messages;
    let nanos = |window: &Value| {
        let window = crate::time::parse_go_duration(window.as_str().unwrap()).unwrap();
        i64::try_from(window.as_nanos()).unwrap()
    };
    let seconds = |time: &Value| {
        time.as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_second()
    };
    let usage = |usage: &std::collections::BTreeMap<
        String,
        k8s_pb::apimachinery::pkg::api::resource::Quantity,
    >| { json!({"cpu": usage["cpu"].string(), "memory": usage["memory"].string()}) };
    let cluster = Cluster::recorded();
    let (nodes, pods) = (cluster.node_metrics(), cluster.pod_metrics());
    assert!(nodes.info().protobuf && pods.info().protobuf);
    let compared = list(&nodes, ListScope::default(), |item| {
        let (json, found) = (object(item), decoded::<messages::NodeMetrics>(item));
        assert_eq!(found.timestamp.unwrap().seconds(), seconds(&json["timestamp"]));
        assert_eq!(found.window.unwrap().duration(), nanos(&json["window"]));
        assert_eq!(usage(&found.usage), json["usage"]);
    });
    assert_eq!(compared.len(), 1);
    let compared = list(&pods, ListScope::default(), |item| {
        let (json, found) = (object(item), decoded::<messages::PodMetrics>(item));
        assert_eq!(found.timestamp.unwrap().seconds(), seconds(&json["timestamp"]));
        assert_eq!(found.window.unwrap().duration(), nanos(&json["window"]));
        let containers = found.containers.iter();
        let containers: Vec<_> = containers
            .map(|container| json!({"name": container.name(), "usage": usage(&container.usage)}))
            .collect();
        assert_eq!(Value::from(containers), json["containers"]);
    });
    assert_eq!(compared.len(), 3);
}

#[test]
fn cells_of_a_pod_are_the_sum_of_its_containers() {
    let cluster = Cluster::recorded();
    for (seconds, cpu) in [(100, 0), (115, 3)] {
        let mut text = String::new();
        for container in ["a", "b"] {
            let labels = format!("{{container=\"{container}\",namespace=\"default\",pod=\"no-usage\"}}");
            writeln!(
                text,
                "container_cpu_usage_seconds_total{labels} {cpu} {seconds}000"
            )
            .unwrap();
            writeln!(
                text,
                "container_memory_working_set_bytes{labels} 524288 {seconds}000"
            )
            .unwrap();
        }
        cluster.scrape(&text);
    }
    let scope = ListScope {
        namespace: Some("default"),
        after: None,
    };
    assert_eq!(
        list(&cluster.pod_metrics(), scope, cells),
        [json!(["no-usage", "400m", "1Mi", "15s"])]
    );
}

#[test]
fn one_object_is_the_same_as_in_the_list() {
    let cluster = Cluster::recorded();
    let get = |resource: &dyn Resource, namespace, name| {
        let mut found = Vec::new();
        resource
            .get(Key { namespace, name }, &mut |item| found.push(object(item)))
            .map(|()| found)
    };
    let (nodes, pods) = (cluster.node_metrics(), cluster.pod_metrics());
    assert_eq!(
        get(&nodes, None, "node-a").unwrap(),
        list(&nodes, ListScope::default(), object)
    );
    let first = list(&pods, ListScope::default(), object).swap_remove(0);
    assert_eq!(get(&pods, Some("kube-system"), "etcd-node-a").unwrap(), [first]);
    let refusal = |resource, namespace, name| get(resource, namespace, name).unwrap_err().message;
    assert_eq!(refusal(&nodes, None, "none"), r#"node "none" not found"#);
    assert_eq!(
        refusal(&nodes, None, "node-b"),
        r#"nodemetrics.metrics.k8s.io "node-b" not found"#
    );
    assert_eq!(
        refusal(&pods, Some("default"), "none"),
        r#"pods "none" not found"#
    );
    let no_metrics = r#"podmetrics.metrics.k8s.io "default/no-usage" not found"#;
    assert_eq!(refusal(&pods, Some("default"), "no-usage"), no_metrics);
}

#[test]
fn a_list_goes_on_after_any_key() {
    let cluster = Cluster::recorded();
    let pods = cluster.pod_metrics();
    let all = [
        "kube-system/etcd-node-a",
        "kube-system/kube-apiserver-node-a",
        "kube-system/metrics-server-666797b96f-p8lnm",
    ];
    let list = |namespace, after: Option<(&'static str, &'static str)>| {
        let after = after.map(|(namespace, name)| Key {
            namespace: Some(namespace),
            name,
        });
        names(&pods, ListScope { namespace, after })
    };
    assert_eq!(list(None, None), all);
    assert_eq!(list(Some("kube-system"), None), all);
    assert_eq!(list(Some("default"), None), [""; 0]);
    assert_eq!(list(Some("kube"), None), [""; 0]);
    assert_eq!(list(None, Some(("kube-system", "etcd-node-a"))), all[1..]);
    assert_eq!(list(None, Some(("kube-system", "f"))), all[1..]);
    assert_eq!(list(Some("kube-system"), Some(("a", "z"))), all);
    assert_eq!(list(Some("kube-system"), Some(("kube-system", "z"))), [""; 0]);
    assert_eq!(list(None, Some(("l", ""))), [""; 0]);
    let nodes = cluster.node_metrics();
    let after = |name| ListScope {
        namespace: None,
        after: Some(Key {
            namespace: None,
            name,
        }),
    };
    assert_eq!(names(&nodes, after("node")), ["-/node-a"]);
    assert_eq!(names(&nodes, after("node-a")), [""; 0]);
    let mut visits = 0;
    let stopped = pods.list(ListScope::default(), &mut |_| {
        visits += 1;
        ControlFlow::Break(())
    });
    assert_eq!((stopped, visits), (Ok(()), 1));
}

#[test]
fn what_is_deleted_is_answered_no_longer() {
    let cluster = Cluster::recorded();
    cluster.nodes.delete("node-a");
    assert_eq!(names(&cluster.node_metrics(), ListScope::default()), [""; 0]);
    let etcd = json!({"namespace": "kube-system", "name": "etcd-node-a"});
    cluster.pods.delete(&serde_json::from_value(etcd).unwrap());
    let pods = cluster.pod_metrics();
    assert_eq!(
        names(
            &pods,
            ListScope {
                namespace: Some("kube-system"),
                after: None
            }
        )
        .len(),
        2
    );
    cluster.store.remove("node-a");
    assert_eq!(names(&pods, ListScope::default()), [""; 0]);
}
