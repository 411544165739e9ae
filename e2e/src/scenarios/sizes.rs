//! What a replica of metrics-api needs, by the number of nodes: figures for the operator's table of requests.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::METRICS_API;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::access::NODES;
use super::context::Context;
use super::fake_kubelet::{self, LABEL};
use super::pod::RunningPod;
use super::wait::eventually;
use super::{drop_in, load, pki};
use crate::images::metrics_server_reference;
use crate::tools::METRICS_SERVER;

/// Numbers of nodes.
const STEPS: [usize; 5] = [100, 500, 1_000, 2_000, 5_000];
/// Most of them with metrics-server beside ours: with more the machine has no time left for both.
const MOST_BOTH: usize = 1_000;
const PODS_OF_A_NODE: usize = 20;
const CONTAINERS_OF_A_POD: usize = 2;
/// Calls to kube-apiserver at a time.
const AT_A_TIME: usize = 32;
const ANSWERED_WITHIN: Duration = Duration::from_mins(5);
/// How long a replica is looked at.
const WATCHED_FOR: Duration = Duration::from_mins(1);
/// Clock ticks of a second in `/proc/<pid>/stat` (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// Nodes with pods that lead to us, more from step to step, read ten times a second meanwhile.
pub(super) async fn are_measured(context: &Context) -> Result<()> {
    context.working_stack().await?;
    // The operator's own table would have them replaced at each step.
    let resources = json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
    context
        .apply_stack(&json!({"metricsApi": {"resources": resources}}))
        .await?;
    context.ready().await?;
    let peer = peer_manifest(context).await?;
    context.apply(&peer).await?;
    let real = usize::from(context.cluster.nodes());
    let mut kubelets = Vec::new();
    let mut known = 0;
    let delete = ["delete", "--ignore-not-found", "--filename", "-"];
    for nodes in STEPS {
        let both = nodes <= MOST_BOTH;
        if !both {
            context.cluster.kubectl_stdin(delete, &peer).await?;
        }
        let began = Instant::now();
        let registered: Vec<_> = stream::iter(known..nodes)
            .map(|number| register(context, number))
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        kubelets.extend(registered);
        known = nodes;
        context.say(format_args!(
            "{nodes} nodes made in {:.0} s",
            began.elapsed().as_secs_f64()
        ));
        eventually("every node is answered", ANSWERED_WITHIN, async || {
            let list: Value = serde_json::from_str(&context.kubectl(&["get", "--raw", NODES]).await?)?;
            let found = list["items"].as_array().map_or(0, Vec::len);
            ensure!(found == nodes + real, "{found} are");
            Ok(())
        })
        .await?;
        let (used, outcome) = load::of_nodes_during(context, async {
            let pods = context.metrics_api_pods().await?;
            let before = all_use(context, both).await?;
            tokio::time::sleep(WATCHED_FOR).await;
            let after = all_use(context, both).await?;
            ensure!(
                context.metrics_api_pods().await? == pods,
                "replicas were replaced meanwhile"
            );
            Ok(before.into_iter().zip(after).collect::<Vec<_>>())
        })
        .await?;
        for ((whose, before), (_, after)) in used {
            context.say(format_args!(
                "{nodes} nodes, {} pods, {whose}: {:.0} m CPU, {} MiB, at most {} MiB",
                nodes * PODS_OF_A_NODE,
                (after.cpu - before.cpu) / WATCHED_FOR.as_secs_f64() * 1000.0,
                after.memory / 1024,
                after.peak / 1024,
            ));
        }
        context.say(format_args!(
            "{} reads, {} failed, the slowest {} ms",
            outcome.answered,
            outcome.failed.len(),
            outcome.slowest.as_millis()
        ));
    }
    drop(kubelets);
    fake_kubelet::remove_all(context).await
}

/// Makes a Node and its Pods, and answers for it until that is dropped.
async fn register(context: &Context, number: usize) -> Result<AbortOnDropHandle<()>> {
    let node = format!("fake-{number}");
    let listener = TcpListener::bind((context.own_address()?, 0)).await?;
    let address = listener.local_addr()?;
    let identity = pki::self_signed_kubelet(&node)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate], identity.key)?;
    // It is asked as soon as its Node is there.
    let serving = serve(listener, TlsAcceptor::from(Arc::new(config)), node.clone());
    let serving = AbortOnDropHandle::new(tokio::spawn(serving));
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node, "labels": {LABEL: "true"}},
        "spec": {"unschedulable": true, "taints": [{"key": LABEL, "effect": "NoSchedule"}]},
        "status": fake_kubelet::status_at(address),
    });
    let nodes = Api::<Node>::all(context.client.clone());
    nodes
        .create(&PostParams::default(), &serde_json::from_value(manifest)?)
        .await?;
    let pods = Api::<Pod>::namespaced(context.client.clone(), "default");
    for pod in 0..PODS_OF_A_NODE {
        let name = format!("{node}-{pod}");
        let containers: Vec<_> = (0..CONTAINERS_OF_A_POD)
            .map(|container| json!({"name": format!("c{container}"), "image": "fake"}))
            .collect();
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {LABEL: "true", "app": "fake", "pod-template-hash": "5d9c8b7f6"}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": containers,
                "tolerations": [{"operator": "Exists"}]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(manifest)?)
            .await?;
        let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
        pods.patch_status(&name, &PatchParams::default(), &running)
            .await?;
    }
    Ok(serving)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, node: String) {
    let started = Instant::now();
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, node) = (acceptor.clone(), node.clone());
        connections.spawn(async move {
            // What goes wrong on a connection is seen by whoever made it.
            let _ended = answer(stream, acceptor, &node, started).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers on one connection for as long as it is kept, as a kubelet does.
async fn answer(stream: TcpStream, acceptor: TlsAcceptor, node: &str, started: Instant) -> Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            let body = exposition(node, started.elapsed());
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await?;
            stream.flush().await?;
        }
    }
}

fn exposition(node: &str, up: Duration) -> String {
    let time = Timestamp::now().as_millisecond();
    let cpu = up.as_secs_f64() / 100.0;
    let mut body = format!(
        "# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n\
         # TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {cpu} {time}\n\
         # TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes 1e+09 {time}\n"
    );
    for (family, kind, value) in [
        ("container_start_time_seconds", "gauge", 1.79e9),
        ("container_cpu_usage_seconds_total", "counter", cpu),
        ("container_memory_working_set_bytes", "gauge", 5e7),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(body, "# TYPE {family} {kind}");
        for pod in 0..PODS_OF_A_NODE {
            for container in 0..CONTAINERS_OF_A_POD {
                let _ = writeln!(
                    body,
                    "{family}{{container=\"c{container}\",namespace=\"default\",pod=\"{node}-{pod}\"}} {value} {time}"
                );
            }
        }
    }
    body
}

/// What a process has used.
struct Used {
    /// Seconds.
    cpu: f64,
    /// KiB.
    memory: u64,
    /// KiB.
    peak: u64,
}

/// metrics-server itself beside ours: everything of its manifests but the APIService.
async fn peer_manifest(context: &Context) -> Result<String> {
    let manifests = drop_in::manifests(context, &metrics_server_reference()).await?;
    let documents = manifests
        .split("---\n")
        .filter(|document| !document.contains("kind: APIService"));
    let resolution = "- --metric-resolution=15s\n";
    let documents: Vec<_> = documents.collect();
    let manifest = documents.join("---\n");
    ensure!(
        manifest.contains(resolution),
        "metrics-server's manifests have no {resolution}"
    );
    Ok(manifest.replace(
        resolution,
        "- --metric-resolution=15s\n        - --kubelet-insecure-tls\n",
    ))
}

async fn metrics_server(context: &Context) -> Result<Used> {
    let args = [
        "get",
        "pods",
        "--namespace=kube-system",
        "--selector=k8s-app=metrics-server",
    ];
    let address = "--output=jsonpath={.items[*].status.podIP}";
    let address = context.kubectl(&[args.as_slice(), &[address]].concat()).await?;
    let address = address
        .parse()
        .with_context(|| format!("one metrics-server, its address: {address:?}"))?;
    used(context, &RunningPod::at(address)?, METRICS_SERVER).await
}

/// What each replica of ours has used, and perhaps metrics-server.
async fn all_use(context: &Context, both: bool) -> Result<Vec<(&'static str, Used)>> {
    let mut all = Vec::new();
    for (_, address) in context.metrics_api_pods().await? {
        let used = used(context, &RunningPod::at(address)?, METRICS_API).await?;
        all.push((METRICS_API, used));
    }
    if both {
        all.push((
            "metrics-server, which nobody reads",
            metrics_server(context).await?,
        ));
    }
    Ok(all)
}

async fn used(context: &Context, pod: &RunningPod, program: &str) -> Result<Used> {
    let pid = pod.process(context, program).await?;
    let status = pod.run(context, &["cat", &format!("/proc/{pid}/status")]).await?;
    let size = |key: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let line = line.with_context(|| format!("no {key} in {status}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let stat = pod.run(context, &["cat", &format!("/proc/{pid}/stat")]).await?;
    let (_, fields) = stat.rsplit_once(") ").context("no end of the name")?;
    let fields: Vec<_> = fields.split(' ').collect();
    // utime and stime, the 14th and 15th of all.
    let ticks = fields.get(11..13).context("too few fields")?;
    let ticks: Vec<f64> = ticks
        .iter()
        .map(|field| field.parse())
        .collect::<Result<_, _>>()?;
    Ok(Used {
        cpu: ticks.iter().sum::<f64>() / TICKS,
        memory: size("VmRSS:")?,
        peak: size("VmHWM:")?,
    })
}
