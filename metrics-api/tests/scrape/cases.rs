//! Cases in which metrics-server loses metrics, or answers wrong ones, each from a kubelet's bytes to what is answered.

use std::{fmt::Write as _, ops::ControlFlow, sync::Arc};

use contract::report::ErrorClass;
use extension_apiserver::{Item, Key, ListScope, Resource, json::JsonObject};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use metrics_api::{
    decode::{decode, decode_summary},
    index::{NodeChange, NodeIndex, NodeInfo, PodIndex},
    kubelet::{
        address::{AddressRules, AddressType, Endpoint},
        client::Kept,
        tls::TlsMode,
    },
    names::Names,
    resources::{NodeMetrics, PodMetrics},
    scrape::{
        fleet::Ask as _,
        kubelets::{KubeletSource, Kubelets},
    },
    store::{Store, series::Rules},
    time::{Monotonic, MonotonicClock, UnixMillis},
};
use serde_json::{Value, json};

use crate::support::{
    METRICS, SUMMARY, client,
    kubelet::{Answer, FakeKubelet},
    pki::Authority,
};

/// The node's clock at second 0.
const CLOCK: i64 = 1_795_452_000_000;
/// The second that is now: answers arrive before it.
const NOW: u64 = 60;

/// A cluster with one node, whose kubelet says what it is told to.
struct Cluster {
    kubelet: FakeKubelet,
    kubelets: Kubelets,
    nodes: Arc<NodeIndex>,
    pods: Arc<PodIndex>,
    store: Arc<Store>,
    clock: MonotonicClock,
    kept: Kept,
}

impl Cluster {
    async fn new() -> Self {
        let authority = Authority::new("cluster");
        let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
        let names = Names::default();
        let cluster = Self {
            kubelets: Kubelets {
                client: client(TlsMode::Insecure, &authority),
                addresses: AddressRules {
                    types: vec![AddressType::InternalIP, AddressType::Hostname],
                    port: 1,
                    use_node_status_port: true,
                    loopback: true,
                },
                source: KubeletSource::Auto,
            },
            nodes: Arc::new(NodeIndex::new(names.clone())),
            pods: Arc::new(PodIndex::new(names.clone())),
            store: Arc::new(Store::new(Rules { resolution: 15_000 }, names)),
            clock: MonotonicClock::start(),
            kept: Kept::default(),
            kubelet,
        };
        cluster.node(
            &[("InternalIP", "127.0.0.1")],
            None,
            cluster.kubelet.endpoint.port,
        );
        cluster
    }

    fn node(&self, addresses: &[(&str, &str)], path: Option<&str>, port: u16) -> (Arc<NodeInfo>, NodeChange) {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "node-a", "uid": "u",
                "annotations": path.map(|path| json!({"metrics.k8s.io/resource-metrics-path": path})),
            },
            "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}},
        }))
        .unwrap();
        self.nodes.apply(&node).unwrap()
    }

    /// A pod runs, and is known to since that second.
    fn run(&self, pod: &str, uid: &str, second: u64) {
        let meta = json!({"namespace": "n", "name": pod, "uid": uid});
        self.pods
            .apply(&serde_json::from_value::<ObjectMeta>(meta).unwrap(), at(second));
    }

    /// Asks the kubelet, which answers this, in that second.
    async fn scrape(&mut self, second: u64, body: String) {
        self.kubelet.answer(Answer::Full(200, body.into_bytes()));
        let (_, body) = self.ask().await;
        let body = body.unwrap();
        let asked = UnixMillis(CLOCK + i64::try_from(second).unwrap() * 1000);
        let batch = decode(&body, asked).unwrap();
        self.store.put("node-a", &batch, at(second));
    }

    async fn ask(&mut self) -> (Option<Endpoint>, Result<Vec<u8>, ErrorClass>) {
        let node = self.nodes.get("node-a").unwrap();
        let (endpoint, answer) = self.kubelets.ask(&mut self.kept, &node).await;
        let body = answer.map(|answer| answer.body).map_err(|error| error.class);
        (endpoint, body)
    }

    /// What a list of pods answers, by name: container, CPU and memory.
    fn listed(&self) -> Vec<(String, Value)> {
        let resource = PodMetrics::new(Arc::clone(&self.store), Arc::clone(&self.pods), self.clock);
        let mut listed = Vec::new();
        resource
            .list(ListScope::default(), &mut |item| {
                listed.push((item.name().to_owned(), containers(&written(item))));
                ControlFlow::Continue(())
            })
            .unwrap();
        listed
    }

    fn node_usage(&self) -> Value {
        let resource = NodeMetrics::new(Arc::clone(&self.store), Arc::clone(&self.nodes), self.clock);
        let mut usage = Value::Null;
        let key = Key {
            namespace: None,
            name: "node-a",
        };
        let _ = resource.get(key, &mut |item| usage = written(item)["usage"].clone());
        usage
    }
}

fn written(item: &dyn Item) -> Value {
    let mut out = Vec::new();
    JsonObject::write(&mut out, |object| item.write_fields(object));
    serde_json::from_slice(&out).unwrap()
}

/// `{"a": ["200m", "4Ki"]}`.
fn containers(pod: &Value) -> Value {
    let containers = pod["containers"].as_array().unwrap();
    containers
        .iter()
        .map(|container| {
            let usage = &container["usage"];
            (
                container["name"].as_str().unwrap().to_owned(),
                json!([usage["cpu"], usage["memory"]]),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn at(second: u64) -> Monotonic {
    Monotonic(86_400_000 - NOW * 1000 + second * 1000)
}

/// A container as a kubelet reports it in that second: its pod, its name, the cores it uses, when it started.
#[derive(Clone, Copy)]
struct Running(&'static str, &'static str, f64, u64);

/// A kubelet's answer in that second.
fn answer(second: u64, running: &[Running]) -> String {
    let millis = CLOCK + i64::try_from(second).unwrap() * 1000;
    let seconds = |count: u64| f64::from(u32::try_from(count).unwrap());
    let mut text = format!(
        "node_cpu_usage_seconds_total {second} {millis}\nnode_memory_working_set_bytes 1.048576e+06 {millis}\n"
    );
    for Running(pod, name, cores, start) in running {
        let labels = format!("{{container=\"{name}\",namespace=\"n\",pod=\"{pod}\"}}");
        let cpu = cores * seconds(second - start);
        let started = CLOCK / 1000 + i64::try_from(*start).unwrap();
        let _ = writeln!(text, "container_cpu_usage_seconds_total{labels} {cpu} {millis}");
        let _ = writeln!(text, "container_memory_working_set_bytes{labels} 4096 {millis}");
        let _ = writeln!(text, "container_start_time_seconds{labels} {started}");
    }
    text + "resource_scrape_error 0\n"
}

fn one(pod: &str, containers: &Value) -> Vec<(String, Value)> {
    vec![(pod.to_owned(), containers.clone())]
}

const A: Running = Running("p", "a", 0.2, 0);

#[tokio::test]
async fn a_sidecar_counts_and_a_pod_is_answered_whole() {
    let mut cluster = Cluster::new().await;
    cluster.run("p", "u", 0);
    let sidecar = Running("p", "sidecar", 0.1, 40);
    cluster.scrape(30, answer(30, &[A])).await;
    cluster.scrape(45, answer(45, &[A, sidecar])).await;
    assert_eq!(
        cluster.listed(),
        [],
        "half of it would be taken for less than is used"
    );
    cluster.scrape(60, answer(60, &[A, sidecar])).await;
    let whole = json!({"a": ["200m", "4Ki"], "sidecar": ["100m", "4Ki"]});
    assert_eq!(cluster.listed(), one("p", &whole));
}

#[tokio::test]
async fn an_init_container_that_has_ended_is_not_waited_for() {
    let mut cluster = Cluster::new().await;
    cluster.run("p", "u", 0);
    let (init, main) = (Running("p", "init", 1.0, 10), Running("p", "main", 0.5, 48));
    cluster.scrape(30, answer(30, &[init])).await;
    cluster.scrape(45, answer(45, &[init])).await;
    cluster.scrape(60, answer(60, &[main])).await;
    assert_eq!(cluster.listed(), one("p", &json!({"main": ["500m", "4Ki"]})));
}

#[tokio::test]
async fn a_static_pod_is_answered_by_the_name_of_its_mirror() {
    let mut cluster = Cluster::new().await;
    // The mirror's UID in the API is not the one that the kubelet goes by.
    cluster.run("etcd-node-a", "mirror", 0);
    let etcd = Running("etcd-node-a", "etcd", 0.2, 0);
    for second in [30, 45] {
        cluster.scrape(second, answer(second, &[etcd])).await;
    }
    assert_eq!(
        cluster.listed(),
        one("etcd-node-a", &json!({"etcd": ["200m", "4Ki"]}))
    );
}

#[tokio::test]
async fn a_pod_recreated_under_its_name_starts_anew() {
    let mut cluster = Cluster::new().await;
    cluster.run("p", "first", 0);
    cluster.pods.finish();
    for second in [30, 45] {
        cluster.scrape(second, answer(second, &[A])).await;
    }
    assert_eq!(cluster.listed().len(), 1);
    cluster.run("p", "second", 47);
    assert_eq!(cluster.listed(), [], "what is known is of the first");
    let again = Running("p", "a", 0.7, 48);
    cluster.scrape(60, answer(60, &[again])).await;
    assert_eq!(cluster.listed(), one("p", &json!({"a": ["700m", "4Ki"]})));
}

#[tokio::test]
async fn text_of_a_windows_kubelet_is_read() {
    let mut cluster = Cluster::new().await;
    cluster.run("p", "u", 0);
    for second in [30, 45] {
        // Carriage returns, exponents, and families that Linux does not have.
        let text = answer(second, &[A])
            .replace('\n', "\r\n")
            .replace(" 4096 ", " 4.096e+03 ");
        let text = text + "windows_container_network_rx_bytes{container=\"a\"} 1\r\n";
        cluster.scrape(second, text).await;
    }
    assert_eq!(cluster.listed(), one("p", &json!({"a": ["200m", "4Ki"]})));
    assert_eq!(cluster.node_usage(), json!({"cpu": "1", "memory": "1Mi"}));
}

#[tokio::test]
async fn a_virtual_node_has_its_own_path_and_samples_without_a_time() {
    let mut cluster = Cluster::new().await;
    let port = cluster.kubelet.endpoint.port;
    cluster.node(&[("InternalIP", "127.0.0.1")], Some("/virtual/metrics"), port);
    cluster.run("p", "u", 0);
    for second in [30, 45] {
        let millis = CLOCK + i64::try_from(second).unwrap() * 1000;
        let text = answer(second, &[A]).replace(&format!(" {millis}\n"), "\n");
        cluster.scrape(second, text).await;
    }
    assert_eq!(cluster.listed(), one("p", &json!({"a": ["200m", "4Ki"]})));
    assert_eq!(cluster.kubelet.seen()[0].line, "GET /virtual/metrics");
}

#[tokio::test]
async fn of_a_dual_stack_node_the_first_address_is_dialled() {
    let mut cluster = Cluster::new().await;
    let port = cluster.kubelet.endpoint.port;
    for (addresses, expected) in [
        (["127.0.0.1", "fd00::a"], format!("127.0.0.1:{port}")),
        (["fd00::a", "127.0.0.1"], format!("[fd00::a]:{port}")),
    ] {
        cluster.node(&addresses.map(|address| ("InternalIP", address)), None, port);
        let node = cluster.nodes.get("node-a").unwrap();
        let known = node.addresses.iter().map(|(kind, value)| (&**kind, &**value));
        let chosen = cluster.kubelets.addresses.choose(&known, port).unwrap();
        assert_eq!(chosen.to_string(), expected);
    }
    cluster.node(
        &[("InternalIP", "127.0.0.1"), ("InternalIP", "fd00::a")],
        None,
        port,
    );
    cluster.scrape(30, answer(30, &[A])).await;
}

#[tokio::test]
async fn a_node_without_an_address_keeps_its_last_usage_and_says_why() {
    let mut cluster = Cluster::new().await;
    for second in [30, 45] {
        cluster.scrape(second, answer(second, &[])).await;
    }
    let (_, change) = cluster.node(&[("ExternalDNS", "node-a.example")], None, 10250);
    assert_eq!(change, NodeChange::Changed);
    assert_eq!(cluster.ask().await, (None, Err(ErrorClass::NoAddress)));
    assert_eq!(cluster.node_usage(), json!({"cpu": "1", "memory": "1Mi"}));
}

#[tokio::test]
async fn a_node_that_changes_its_address_is_dialled_there_and_keeps_its_samples() {
    let mut cluster = Cluster::new().await;
    cluster.scrape(30, answer(30, &[])).await;
    let moved = FakeKubelet::start(&Authority::new("other").leaf(|_| {})).await;
    cluster.node(&[("InternalIP", "127.0.0.1")], None, moved.endpoint.port);
    let old = std::mem::replace(&mut cluster.kubelet, moved);
    cluster.scrape(45, answer(45, &[])).await;
    assert_eq!((old.seen().len(), cluster.kubelet.seen().len()), (1, 1));
    assert_eq!(cluster.node_usage(), json!({"cpu": "1", "memory": "1Mi"}));
}

#[tokio::test]
async fn a_zero_is_a_value() {
    let mut cluster = Cluster::new().await;
    cluster.run("p", "u", 0);
    let idle = Running("p", "a", 0.0, 0);
    for second in [30, 45] {
        let text = answer(second, &[idle]).replace(" 4096 ", " 0 ");
        cluster.scrape(second, text).await;
    }
    assert_eq!(cluster.listed(), one("p", &json!({"a": ["0", "0"]})));
}

/// Two good answers, then one that is damaged: what is listed of the pods `p` and `q` after it.
async fn damaged(damage: impl Fn(String) -> String) -> Vec<(String, Value)> {
    let mut cluster = Cluster::new().await;
    let running = [A, Running("q", "b", 0.3, 0)];
    cluster.run("p", "u", 0);
    cluster.run("q", "v", 0);
    for second in [30, 45] {
        cluster.scrape(second, answer(second, &running)).await;
    }
    // From here on both use more.
    let text = answer(60, &running)
        .replace(" 12 ", " 13.5 ")
        .replace(" 18 ", " 19.5 ");
    cluster.scrape(60, damage(text)).await;
    assert_eq!(cluster.node_usage(), json!({"cpu": "1", "memory": "1Mi"}));
    cluster.listed()
}

const CPU_OF_A: &str = "container_cpu_usage_seconds_total{container=\"a\"";
const MEMORY_OF_A: &str = "container_memory_working_set_bytes{container=\"a\"";

fn without(text: &str, start: &str) -> String {
    let kept = text.lines().filter(|line| !line.starts_with(start));
    kept.map(|line| line.to_owned() + "\n").collect()
}

#[tokio::test]
async fn a_line_that_comes_twice_costs_nothing() {
    let listed = damaged(|text| {
        let line = text.lines().find(|line| line.starts_with(CPU_OF_A)).unwrap();
        format!("{text}{line}\n")
    })
    .await;
    let expected = [
        ("p".to_owned(), json!({"a": ["300m", "4Ki"]})),
        ("q".to_owned(), json!({"b": ["400m", "4Ki"]})),
    ];
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_malformed_line_costs_its_value_once_and_no_other() {
    let listed =
        damaged(|text| text.replace(CPU_OF_A, "container_cpu_usage_seconds_total{container=a")).await;
    let expected = [
        ("p".to_owned(), json!({"a": ["200m", "4Ki"]})),
        ("q".to_owned(), json!({"b": ["400m", "4Ki"]})),
    ];
    assert_eq!(listed, expected, "the last usage stands in");
}

#[tokio::test]
async fn a_missing_line_costs_its_value_once_and_no_other() {
    let cpu = damaged(|text| without(&text, CPU_OF_A)).await;
    assert_eq!(cpu[0], ("p".to_owned(), json!({"a": ["200m", "4Ki"]})));
    let memory = damaged(|text| without(&text, MEMORY_OF_A)).await;
    assert_eq!(
        memory[0],
        ("p".to_owned(), json!({"a": ["300m", "4Ki"]})),
        "CPU goes on"
    );
    assert_eq!(cpu[1], memory[1]);
}

#[tokio::test]
async fn swap_is_answered_where_any_is_used() {
    let mut cluster = Cluster::new().await;
    for (second, swap) in [(30, 0), (45, 0), (60, 8192)] {
        let millis = CLOCK + i64::try_from(second).unwrap() * 1000;
        let text = answer(second, &[]) + &format!("node_swap_usage_bytes {swap} {millis}\n");
        cluster.scrape(second, text).await;
        if second == 45 {
            assert_eq!(cluster.node_usage(), json!({"cpu": "1", "memory": "1Mi"}));
        }
    }
    assert_eq!(
        cluster.node_usage(),
        json!({"cpu": "1", "memory": "1Mi", "swap": "8Ki"})
    );
}

/// The recorded resource metrics, so many seconds later, with that many more seconds of CPU time for each counter.
fn resource_later(seconds: i64, cpu: u32) -> String {
    let recorded = str::from_utf8(METRICS).unwrap().lines().map(|line| {
        let fields: Vec<_> = line.rsplitn(3, ' ').collect();
        match fields[..] {
            [time, value, series] if !line.starts_with('#') && time.len() == 13 => {
                let time = time.parse::<i64>().unwrap() + seconds * 1000;
                let value: f64 = value.parse().unwrap();
                let more = if series.contains("_cpu_") {
                    f64::from(cpu)
                } else {
                    0.0
                };
                format!("{series} {:.9} {time}\n", value + more)
            }
            _ => line.to_owned() + "\n",
        }
    });
    recorded.collect()
}

/// The recorded summary, likewise.
fn summary_later(seconds: i64, cpu: u64) -> String {
    fn change(value: &mut Value, seconds: i64, cpu: u64) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match name.as_str() {
                        "usageCoreNanoSeconds" => {
                            *value = (value.as_u64().unwrap() + cpu * 1_000_000_000).into();
                        }
                        "time" => {
                            let time: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
                            *value = (time + jiff::SignedDuration::from_secs(seconds))
                                .to_string()
                                .into();
                        }
                        _ => change(value, seconds, cpu),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| change(value, seconds, cpu)),
            _ => {}
        }
    }
    let mut summary: Value = serde_json::from_slice(SUMMARY).unwrap();
    change(&mut summary, seconds, cpu);
    summary.to_string()
}

#[tokio::test]
async fn usages_from_both_sources_agree() {
    let mut usages = Vec::new();
    for from_summary in [false, true] {
        let cluster = Cluster::new().await;
        for (second, seconds, cpu) in [(30, 0, 0), (45, 15, 3)] {
            let (resource, summary) = (resource_later(seconds, cpu), summary_later(seconds, cpu.into()));
            let batch = if from_summary {
                decode_summary(summary.as_bytes(), UnixMillis(CLOCK))
            } else {
                decode(resource.as_bytes(), UnixMillis(CLOCK))
            };
            let batch = batch.unwrap();
            for container in &batch.containers {
                let meta = json!({"namespace": container.namespace, "name": container.pod, "uid": "u"});
                cluster
                    .pods
                    .apply(&serde_json::from_value::<ObjectMeta>(meta).unwrap(), at(0));
            }
            cluster.store.put("node-a", &batch, at(second));
        }
        let cpu_of_each: Vec<_> = cluster
            .listed()
            .into_iter()
            .map(|(pod, containers)| {
                let (name, usage) = containers.as_object().unwrap().iter().next().unwrap();
                format!("{pod}/{name} {}", usage[0].as_str().unwrap())
            })
            .collect();
        usages.push((cluster.node_usage(), cpu_of_each));
    }
    assert_eq!(usages[0], usages[1]);
    assert_eq!(usages[0].0["cpu"], "200m");
    assert_eq!(usages[0].1.len(), 5);
}
