//! Kubelets that do what a real one will not do on command: servers of ours, with Nodes that lead to them.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::context::Context;
use super::pki::Identity;
use super::wait::eventually;

/// Label of the Nodes, by which they are removed.
pub(super) const LABEL: &str = "e2e.metricsstack.dev/fake-kubelet";
/// Where nobody listens: tcpmux.
const DESERTED_PORT: u16 = 1;
/// A Node that says nothing for some 50 s counts as gone.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A hundred thousand Pods take minutes.
const REMOVED_WITHIN: Duration = Duration::from_mins(10);

const MEMORY: f64 = 1_073_741_824.0;
const SWAP: f64 = 536_870_912.0;
const SWAP_CAPACITY: u64 = 2_147_483_648;

/// What a fake kubelet answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Usable samples.
    Metrics,
    /// This status.
    Status(u16),
    /// 200 and bytes that are no exposition.
    Garbage,
    /// 200 and lines without an end.
    Endless,
    /// Nothing, on an open connection.
    Silent,
}

/// A fake kubelet, with its Node.
pub(super) struct FakeKubelet {
    /// Name of its Node.
    pub(super) node: String,
    state: Arc<State>,
    tasks: Vec<AbortHandle>,
}

struct State {
    node: String,
    shown: Mutex<(Behaviour, Identity)>,
    handshakes: AtomicUsize,
    requests: Mutex<Requests>,
    started: Instant,
}

/// What was asked so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Number of requests by the address that they came from.
    pub(super) by_peer: BTreeMap<IpAddr, usize>,
    /// The newest token.
    pub(super) token: Option<String>,
}

impl Requests {
    /// Number of requests, whoever sent them.
    pub(super) fn count(&self) -> usize {
        self.by_peer.values().sum()
    }
}

impl FakeKubelet {
    /// Starts one. `identity` is its serving certificate, for our own address.
    pub(super) async fn start(
        context: &Context,
        node: String,
        identity: Identity,
        behaviour: Behaviour,
    ) -> Result<Self> {
        let listener = TcpListener::bind((context.own_address()?, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            node: node.clone(),
            shown: Mutex::new((behaviour, identity)),
            handshakes: AtomicUsize::new(0),
            requests: Mutex::default(),
            started: Instant::now(),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        let nodes = Api::<Node>::all(context.client.clone());
        create_node(&nodes, &node, status_at(address)).await?;
        let telling = tokio::spawn({
            let node = node.clone();
            async move {
                loop {
                    tokio::time::sleep(HEARTBEAT).await;
                    // The next beat comes soon enough.
                    let _ = tell(&nodes, &node, address).await;
                }
            }
        });
        Ok(Self {
            node,
            state,
            tasks: vec![serving.abort_handle(), telling.abort_handle()],
        })
    }

    /// Creates the Pod of which it has samples, and says that it runs. [`remove_all`] removes it.
    pub(super) async fn create_pod(&self, context: &Context) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.node, "namespace": "default", "labels": {LABEL: "true"}},
            "spec": {"nodeName": self.node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "fake", "image": "fake"}]},
        });
        context.apply(&pod.to_string()).await?;
        let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
        let pods = Api::<Pod>::namespaced(context.client.clone(), "default");
        pods.patch_status(&self.node, &PatchParams::default(), &running)
            .await?;
        Ok(())
    }

    /// From now on answers this.
    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.state.shown().0 = behaviour;
    }

    /// From now on shows this certificate.
    pub(super) fn present(&self, identity: Identity) {
        self.state.shown().1 = identity;
    }

    /// What was asked so far.
    pub(super) fn requests(&self) -> Requests {
        self.state.requests().clone()
    }

    /// How many connections were made so far, whether or not the other side then trusted our certificate.
    pub(super) fn connections(&self) -> usize {
        self.state.handshakes.load(Ordering::Relaxed)
    }

    /// UID of its Node.
    pub(super) async fn uid(&self, context: &Context) -> Result<String> {
        context
            .kubectl(&["get", "node", &self.node, "--output=jsonpath={.metadata.uid}"])
            .await
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl State {
    fn shown(&self) -> std::sync::MutexGuard<'_, (Behaviour, Identity)> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates a Node with these addresses where no kubelet is. [`remove_all`] removes it.
pub(super) async fn create_deserted(context: &Context, node: &str, addresses: &Value) -> Result<()> {
    let nodes = Api::<Node>::all(context.client.clone());
    create_node(&nodes, node, status(addresses, DESERTED_PORT)).await
}

async fn create_node(nodes: &Api<Node>, node: &str, status: Value) -> Result<()> {
    // As a kubelet registers itself: with its status, so that nobody ever sees it without an address.
    let manifest = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node, "labels": {LABEL: "true"}},
        // Nothing shall be scheduled there.
        "spec": {"unschedulable": true, "taints": [{"key": LABEL, "effect": "NoSchedule"}]},
        "status": status,
    }))?;
    nodes.create(&PostParams::default(), &manifest).await?;
    Ok(())
}

/// Removes the Nodes and the Pods of all fake kubelets.
pub(super) async fn remove_all(context: &Context) -> Result<()> {
    let pods = Api::<Pod>::namespaced(context.client.clone(), "default");
    remove(&pods).await?;
    remove(&Api::<Node>::all(context.client.clone())).await
}

/// kube-apiserver ends a request after a minute, in which not all may be deleted.
async fn remove<K>(api: &Api<K>) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned + Resource,
{
    let ours = ListParams::default().labels(LABEL);
    eventually("they are gone", REMOVED_WITHIN, async || {
        api.delete_collection(&DeleteParams::default(), &ours).await?;
        let left = api.list_metadata(&ours.clone().limit(1)).await?.items.len();
        ensure!(left == 0, "some are left");
        Ok(())
    })
    .await
}

/// Says where the kubelet is, and that it is well.
async fn tell(nodes: &Api<Node>, node: &str, address: SocketAddr) -> Result<()> {
    let patch = json!({"status": status_at(address)});
    nodes
        .patch_status(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The status of a Node whose kubelet is there.
pub(super) fn status_at(address: SocketAddr) -> Value {
    let addresses = json!([{"type": "InternalIP", "address": address.ip()}]);
    status(&addresses, address.port())
}

fn status(addresses: &Value, port: u16) -> Value {
    let now = Timestamp::now().to_string();
    let healthy = |kind: &str, status: &str| -> Value {
        json!({"type": kind, "status": status, "reason": "Fake", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    json!({
        "addresses": addresses,
        // kubectl 1.37 panics at a node with swap and without these.
        "allocatable": {"cpu": "1", "memory": "2Gi"},
        "nodeInfo": {"swap": {"capacity": SWAP_CAPACITY}},
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": [
            healthy("Ready", "True"),
            healthy("MemoryPressure", "False"),
            healthy("DiskPressure", "False"),
            healthy("PIDPressure", "False"),
        ],
    })
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        // What goes wrong on a connection is seen by whoever made it.
        tokio::spawn(answer(stream, peer.ip(), Arc::clone(&state)));
    }
}

/// One request a connection, so that a changed certificate is seen with the next request.
async fn answer(stream: TcpStream, peer: IpAddr, state: Arc<State>) -> Result<()> {
    state.handshakes.fetch_add(1, Ordering::Relaxed);
    let identity = state.shown().1.clone();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate], identity.key)?;
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.context("no whole request")?);
    }
    {
        let mut requests = state.requests();
        *requests.by_peer.entry(peer).or_default() += 1;
        requests.token = bearer(&request).or(requests.token.take());
    }
    let behaviour = state.shown().0;
    let text = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
    match behaviour {
        Behaviour::Metrics => {
            let body = exposition(&state.node, state.started.elapsed(), Timestamp::now());
            stream
                .write_all(format!("{text}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
                .await?;
        }
        Behaviour::Status(code) => {
            let head = format!("HTTP/1.1 {code} Fake\r\nconnection: close\r\ncontent-length: 4\r\n\r\nno.\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Behaviour::Garbage => {
            let body = [0x00, 0xff, b'{', b'\n', 0xc3, 0x28, b'}', b' ', b'\n'].repeat(100);
            stream
                .write_all(format!("{text}content-length: {}\r\n\r\n", body.len()).as_bytes())
                .await?;
            stream.write_all(&body).await?;
        }
        Behaviour::Endless => {
            stream.write_all(format!("{text}\r\n").as_bytes()).await?;
            let lines = "# and so on, and so on, and so on, and so on, and so on, and so on\n".repeat(1000);
            loop {
                stream.write_all(lines.as_bytes()).await?;
            }
        }
        // Until the other side gives up.
        Behaviour::Silent => drop(stream.read_u8().await),
    }
    stream.shutdown().await?;
    Ok(())
}

/// The token of a request.
fn bearer(request: &[u8]) -> Option<String> {
    let request = std::str::from_utf8(request).ok()?;
    let mut headers = request.lines();
    let header = headers.find(|line| line.to_ascii_lowercase().starts_with("authorization:"))?;
    Some(header.rsplit(' ').next()?.to_owned())
}

/// A node that uses a tenth of a CPU, 1 GiB and 512 MiB of swap, and all of that in a Pod of its name.
fn exposition(node: &str, up: Duration, now: Timestamp) -> String {
    let time = now.as_millisecond();
    let cpu = up.as_secs_f64() / 10.0;
    let container = format!("{{container=\"fake\",namespace=\"default\",pod=\"{node}\"}}");
    let mut body = "# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n".to_owned();
    for (of, labels) in [("node", ""), ("container", container.as_str())] {
        let families = [
            ("cpu_usage_seconds_total", "counter", cpu),
            ("memory_working_set_bytes", "gauge", MEMORY),
            ("swap_usage_bytes", "gauge", SWAP),
        ];
        for (family, kind, value) in families {
            // Writing to a string does not fail.
            let _ = writeln!(
                body,
                "# TYPE {of}_{family} {kind}\n{of}_{family}{labels} {value} {time}"
            );
        }
    }
    body
}
