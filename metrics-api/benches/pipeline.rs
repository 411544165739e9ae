//! What an answer of a kubelet costs from bytes to usage, and a list from usage to JSON, at the size of a large
//! cluster: `cargo bench -p metrics-api`, with other numbers of nodes as arguments. Prints, asserts nothing about
//! time.

use std::{
    fmt::Write as _,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use extension_apiserver::{ListScope, Resource as _, json::JsonObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metrics_api::{
    decode::decode,
    index::PodIndex,
    names::Names,
    resources::PodMetrics,
    store::{Store, series::Rules},
    time::{MonotonicClock, UnixMillis},
};

const PODS: usize = 30;
const CONTAINERS: usize = 2;
const ROUNDS: u64 = 3;

fn main() {
    // cargo passes --bench.
    let nodes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    for nodes in if nodes.is_empty() { vec![1000] } else { nodes } {
        measure(nodes);
    }
}

fn measure(nodes: usize) {
    let names = Names::default();
    let store = Arc::new(Store::new(Rules { resolution: 15_000 }, names.clone()));
    let pods = Arc::new(PodIndex::new(names));
    let clock = MonotonicClock::start();
    pods.begin();
    for (node, pod) in (0..nodes).flat_map(|node| (0..PODS).map(move |pod| (node, pod))) {
        let labels = [
            ("app", format!("deployment-{pod}")),
            ("pod-template-hash", "666797b96f".to_owned()),
        ];
        let meta = ObjectMeta {
            namespace: Some(namespace(pod)),
            name: Some(name(node, pod)),
            uid: Some(name(node, pod)),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        };
        pods.apply(&meta, clock.now());
    }
    pods.finish();
    println!("{nodes} nodes x {PODS} pods x {CONTAINERS} containers");
    for round in 0..ROUNDS {
        let (mut bytes, mut decoding, mut storing) = (0, Duration::ZERO, Duration::ZERO);
        for node in 0..nodes {
            let answer = answer(node, 1000 + round * 15);
            bytes += answer.len();
            let start = Instant::now();
            let Ok(batch) = decode(answer.as_bytes(), UnixMillis(1)) else {
                continue;
            };
            let decoded = Instant::now();
            store.put(&format!("node-{node:05}"), &batch, clock.now());
            decoding += decoded - start;
            storing += decoded.elapsed();
        }
        println!(
            "  cycle {round}: {} MB decoded in {decoding:.1?}, stored in {storing:.1?}",
            bytes / 1_000_000
        );
    }
    let resource = PodMetrics::new(store, pods, clock);
    let (start, mut out, mut items) = (Instant::now(), Vec::new(), 0);
    let listed = resource.list(ListScope::default(), &mut |item| {
        JsonObject::write(&mut out, |object| {
            object.object("metadata", |metadata| metadata.string("name", item.name()));
            item.write_fields(object);
        });
        items += 1;
        ControlFlow::Continue(())
    });
    println!(
        "  list of {items} pods, {} MB, in {:.1?}, {listed:?}",
        out.len() / 1_000_000,
        start.elapsed()
    );
}

fn namespace(pod: usize) -> String {
    format!("namespace-{}", pod % 10)
}

fn name(node: usize, pod: usize) -> String {
    format!("deployment-{pod}-666797b96f-{node:05}")
}

/// What a kubelet answers `seconds` after some moment, with all the families and the order of a real one.
fn answer(node: usize, seconds: u64) -> String {
    let millis = 1_795_452_000_000 + seconds * 1000;
    let mut text = String::new();
    let mut family = |family: &str, per_container: bool, value: &dyn Fn(usize) -> String| {
        let _ = writeln!(
            text,
            "# HELP {family} [STABLE] What it is and in which unit\n# TYPE {family} gauge"
        );
        for container in 0..if per_container { CONTAINERS } else { 1 } {
            for pod in 0..PODS {
                let container = if per_container {
                    format!("container=\"container-{container}\",")
                } else {
                    String::new()
                };
                let (namespace, name) = (namespace(pod), name(node, pod));
                let labels = format!("{container}namespace=\"{namespace}\",pod=\"{name}\"");
                let _ = writeln!(text, "{family}{{{labels}}} {}", value(pod));
            }
        }
    };
    let cpu = |pod: usize| format!("{seconds}.{:09} {millis}", node * 7919 + pod);
    let memory = |pod: usize| format!("3.12{pod:05}e+07 {millis}");
    family("container_cpu_usage_seconds_total", true, &cpu);
    family("container_memory_working_set_bytes", true, &memory);
    family("container_start_time_seconds", true, &|_| {
        "1.7954518729262943e+09".to_owned()
    });
    family("container_swap_limit_bytes", true, &memory);
    family("container_swap_usage_bytes", true, &memory);
    family("pod_cpu_usage_seconds_total", false, &cpu);
    family("pod_memory_working_set_bytes", false, &memory);
    family("pod_swap_usage_bytes", false, &memory);
    let _ = writeln!(text, "node_cpu_usage_seconds_total {seconds} {millis}");
    let _ = writeln!(
        text,
        "node_memory_working_set_bytes 1.0e9 {millis}\nresource_scrape_error 0"
    );
    text
}
