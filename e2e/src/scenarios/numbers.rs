//! Served usages are the kubelets' own numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use contract::names::{METRICS_GROUP, METRICS_VERSIONS};
use http::Request;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::Value;
use tokio::task::AbortHandle;

use super::context::Context;
use super::exposition::{Recording, Series};
use super::wait::eventually;

/// How often each kubelet is asked. It takes its samples every ten seconds or so.
const POLL: Duration = Duration::from_secs(1);
/// Time within which every usage must have been compared once: two windows, and repeats for what was not recorded.
const COMPARED_WITHIN: Duration = Duration::from_mins(3);
/// Time within which a container that just started must have a usage of a whole window.
const BUSY_WITHIN: Duration = Duration::from_mins(2);

/// Every served usage is compared with the kubelet's samples at its timestamp and at the beginning of its window.
pub(super) async fn are_the_kubelets(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let recorder = Recorder::start(context);
    let mut open: BTreeSet<String> = BTreeSet::new();
    let mut compared: BTreeSet<String> = BTreeSet::new();
    eventually(
        "every usage was compared with the kubelet's samples",
        COMPARED_WITHIN,
        async || {
            // What is served no longer, such as a pod that ended, need not be compared any more.
            open.clear();
            for version in METRICS_VERSIONS {
                for usage in served(context, version).await? {
                    match recorder
                        .judge(&usage)
                        .with_context(|| format!("{version}: {usage:?}"))
                    {
                        Ok(true) => drop(compared.insert(usage.name(version))),
                        Ok(false) if !compared.contains(&usage.name(version)) => {
                            open.insert(usage.name(version));
                        }
                        Ok(false) => {}
                        // A wrong number is no matter of waiting.
                        Err(error) => return Ok(Err(error)),
                    }
                }
            }
            ensure!(
                !compared.is_empty(),
                "nothing was compared yet, {} samples recorded",
                recorder.samples()
            );
            ensure!(open.is_empty(), "{} compared, not yet: {open:?}", compared.len());
            Ok(Ok(()))
        },
    )
    .await??;
    context.say(format_args!(
        "{} usages equal the kubelets' samples",
        compared.len()
    ));
    for part in ["node-1", "node-2", "kube-system/etcd"] {
        ensure!(
            compared.iter().any(|name| name.contains(part)),
            "{part} is not among {compared:?}"
        );
    }
    Ok(())
}

/// Usages of the busy loop that must be in range, one after the other.
const BUSY_USAGES: usize = 3;

/// A container that would use all it gets, limited to 200m, shows between 100m and 220m.
pub(super) async fn of_a_busy_loop(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let image = super::workload_image();
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "busy-loop", "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "busy", "image": image, "imagePullPolicy": "IfNotPresent", "args": ["busy"],
            "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}},
        }]},
    });
    context.apply(&pod.to_string()).await?;
    context
        .kubectl(&["wait", "--for=condition=Ready", "pod/busy-loop", "--timeout=60s"])
        .await?;
    let path = format!("/apis/{METRICS_GROUP}/v1/namespaces/default/pods/busy-loop");
    let mut usages = BTreeMap::new();
    let in_range = eventually(
        format_args!("the busy loop has {BUSY_USAGES} usages"),
        BUSY_WITHIN,
        async || {
            let answer: Value = serde_json::from_str(&context.kubectl(&["get", "--raw", &path]).await?)?;
            let cpu = nanocores(
                answer["containers"][0]["usage"]["cpu"]
                    .as_str()
                    .unwrap_or_default(),
            )?;
            let millis = cpu / 1_000_000;
            usages.insert(answer["timestamp"].to_string(), millis);
            if !(100..=220).contains(&millis) {
                // A wrong number is no matter of waiting.
                return Ok(Err(anyhow::anyhow!("it uses {millis}m: {answer}")));
            }
            ensure!(usages.len() >= BUSY_USAGES, "so far {usages:?}");
            Ok(Ok(()))
        },
    )
    .await?;
    in_range?;
    let shown: Vec<_> = usages.values().collect();
    context.say(format_args!("a busy loop limited to 200m shows {shown:?}m"));
    context
        .kubectl(&["delete", "pod", "busy-loop", "--wait=false"])
        .await?;
    Ok(())
}

/// One usage as it is served.
#[derive(Debug)]
struct Usage {
    node: Option<String>,
    namespace: String,
    pod: String,
    container: String,
    timestamp: Timestamp,
    window: SignedDuration,
    nanocores: i64,
    bytes: i64,
}

impl Usage {
    fn name(&self, version: &str) -> String {
        match &self.node {
            Some(node) => format!("{version} {node}"),
            None => format!("{version} {}/{}/{}", self.namespace, self.pod, self.container),
        }
    }

    fn series(&self, of_node: &str, of_container: &str) -> Series {
        Series {
            family: if self.node.is_some() {
                of_node
            } else {
                of_container
            }
            .to_owned(),
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            container: self.container.clone(),
        }
    }
}

/// All usages that this version serves.
async fn served(context: &Context, version: &str) -> Result<Vec<Usage>> {
    let mut usages = Vec::new();
    for resource in ["nodes", "pods"] {
        let path = format!("/apis/{METRICS_GROUP}/{version}/{resource}");
        let list: Value = serde_json::from_str(&context.kubectl(&["get", "--raw", &path]).await?)?;
        for item in list["items"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = text(&item["metadata"]["name"]);
            let usage = |node: Option<String>, container: &Value| {
                let (namespace, pod) = match node {
                    Some(_) => (String::new(), String::new()),
                    None => (text(&item["metadata"]["namespace"]), name.clone()),
                };
                let usage = &container["usage"];
                Ok::<_, anyhow::Error>(Usage {
                    node,
                    namespace,
                    pod,
                    container: text(&container["name"]),
                    timestamp: text(&item["timestamp"]).parse()?,
                    window: text(&item["window"]).parse()?,
                    nanocores: nanocores(&text(&usage["cpu"]))?,
                    bytes: bytes(&text(&usage["memory"]))?,
                })
            };
            match item["containers"].as_array() {
                Some(containers) => {
                    for container in containers {
                        usages.push(usage(None, container)?);
                    }
                }
                None => usages.push(usage(Some(name.clone()), item)?),
            }
        }
    }
    Ok(usages)
}

/// Polls the kubelets while it lives.
struct Recorder {
    nodes: BTreeMap<String, Arc<Mutex<Recording>>>,
    polls: Vec<AbortHandle>,
}

impl Recorder {
    fn start(context: &Context) -> Self {
        let mut recorder = Self {
            nodes: BTreeMap::new(),
            polls: Vec::new(),
        };
        for number in 1..=context.cluster.nodes() {
            let node = format!("node-{number}");
            let recording = Arc::<Mutex<Recording>>::default();
            let poll = tokio::spawn(poll(context.client.clone(), node.clone(), Arc::clone(&recording)));
            recorder.polls.push(poll.abort_handle());
            recorder.nodes.insert(node, recording);
        }
        recorder
    }

    fn samples(&self) -> usize {
        self.nodes.values().map(|recording| lock(recording).len()).sum()
    }

    /// Compares a usage with the samples. False if they were not recorded; an error if they differ.
    fn judge(&self, usage: &Usage) -> Result<bool> {
        let cpu = usage.series(
            "node_cpu_usage_seconds_total",
            "container_cpu_usage_seconds_total",
        );
        let memory = usage.series(
            "node_memory_working_set_bytes",
            "container_memory_working_set_bytes",
        );
        let window = i64::try_from(usage.window.as_millis())?;
        let mut verdict = Ok(false);
        for (node, recording) in &self.nodes {
            if usage.node.as_ref().is_some_and(|wanted| wanted != node) {
                continue;
            }
            let recording = lock(recording);
            for time in recording.within_second(&cpu, usage.timestamp.as_millisecond()) {
                let (Some(newer), Some(older)) =
                    (recording.at(&cpu, time), recording.at(&cpu, time - window))
                else {
                    continue;
                };
                let Some(bytes) = recording.at(&memory, time) else {
                    continue;
                };
                match compare(usage, newer - older, bytes) {
                    Ok(()) => return Ok(true),
                    Err(error) => verdict = Err(error),
                }
            }
        }
        verdict
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.polls.iter().for_each(AbortHandle::abort);
    }
}

/// CPU must be equal to rounding, memory equal.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanocores and bytes of one machine are far below 2^52"
)]
fn compare(usage: &Usage, cpu_seconds: f64, bytes: f64) -> Result<()> {
    let expected = cpu_seconds * 1e9 / usage.window.as_secs_f64();
    // One nanocore for the rounding, one for the float's.
    if (expected - usage.nanocores as f64).abs() > 2.0 {
        bail!(
            "{cpu_seconds} CPU seconds within {:?} are {expected:.0}n",
            usage.window
        );
    }
    ensure!(
        (bytes - usage.bytes as f64).abs() < 0.5,
        "the kubelet's memory is {bytes}"
    );
    Ok(())
}

async fn poll(client: Client, node: String, recording: Arc<Mutex<Recording>>) {
    let mut ticks = tokio::time::interval(POLL);
    loop {
        ticks.tick().await;
        let request = Request::get(format!("/api/v1/nodes/{node}/proxy/metrics/resource")).body(Vec::new());
        // What one poll misses is asked again.
        if let Ok(request) = request
            && let Ok(text) = client.request_text(request).await
        {
            lock(&recording).add(&text);
        }
    }
}

fn lock(recording: &Mutex<Recording>) -> std::sync::MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a CPU quantity.
fn nanocores(quantity: &str) -> Result<i64> {
    scaled(
        quantity,
        &[
            ("n", 1),
            ("u", 1_000),
            ("m", 1_000_000),
            ("k", 1_000_000_000_000),
            ("", 1_000_000_000),
        ],
    )
}

/// Reads a memory quantity.
fn bytes(quantity: &str) -> Result<i64> {
    scaled(
        quantity,
        &[
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("Ti", 1 << 40),
            ("k", 1_000),
            ("", 1),
        ],
    )
}

fn scaled(quantity: &str, units: &[(&str, i64)]) -> Result<i64> {
    let scaled = units.iter().find_map(|(unit, scale)| {
        let number: i64 = quantity.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*scale)
    });
    scaled.with_context(|| format!("{quantity:?} is no quantity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        let read = ["12345678n", "12u", "250m", "2", "0"].map(|quantity| nanocores(quantity).unwrap());
        assert_eq!(read, [12_345_678, 12_000, 250_000_000, 2_000_000_000, 0]);
        assert_eq!(
            ["30504Ki", "20Mi", "1500"].map(|q| bytes(q).unwrap()),
            [31_236_096, 20_971_520, 1500]
        );
        assert!(nanocores("much").is_err() && bytes("").is_err());
    }

    #[test]
    fn a_usage_is_compared_with_both_samples() {
        let usage = |nanocores, bytes| Usage {
            node: Some("node-1".to_owned()),
            namespace: String::new(),
            pod: String::new(),
            container: String::new(),
            timestamp: Timestamp::from_second(1000).unwrap(),
            window: SignedDuration::from_secs(10),
            nanocores,
            bytes,
        };
        let mut recording = Recording::default();
        recording.add("node_cpu_usage_seconds_total 5.5 1000200\nnode_memory_working_set_bytes 7 1000200");
        let recorder = |recording| Recorder {
            nodes: BTreeMap::from([("node-1".to_owned(), Arc::new(Mutex::new(recording)))]),
            polls: Vec::new(),
        };
        let incomplete = recorder(recording);
        assert!(!incomplete.judge(&usage(50_000_000, 7)).unwrap());
        let complete = incomplete;
        lock(&complete.nodes["node-1"]).add("node_cpu_usage_seconds_total 5 990200");
        assert!(complete.judge(&usage(50_000_000, 7)).unwrap());
        assert!(complete.judge(&usage(50_000_009, 7)).is_err());
        assert!(complete.judge(&usage(50_000_000, 8)).is_err());
    }
}
