//! Kubelets that do what a real one will not do on command: servers of ours, with Nodes that lead to them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::context::Context;
use super::pki::Identity;

/// Label of the Nodes, by which they are removed.
const LABEL: &str = "e2e.metricsstack.dev/fake-kubelet";
/// A Node that says nothing for some 50 s counts as gone.
const HEARTBEAT: Duration = Duration::from_secs(10);

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
    shown: Mutex<(Behaviour, Identity)>,
    requests: AtomicUsize,
    started: Instant,
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
            shown: Mutex::new((behaviour, identity)),
            requests: AtomicUsize::new(0),
            started: Instant::now(),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "labels": {LABEL: "true"}},
            // Nothing shall be scheduled there.
            "spec": {"unschedulable": true, "taints": [{"key": LABEL, "effect": "NoSchedule"}]},
        });
        context.apply(&manifest.to_string()).await?;
        let nodes = Api::<Node>::all(context.client.clone());
        tell(&nodes, &node, address).await?;
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

    /// From now on answers this.
    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.state.shown().0 = behaviour;
    }

    /// From now on shows this certificate.
    pub(super) fn present(&self, identity: Identity) {
        self.state.shown().1 = identity;
    }

    /// How many requests came so far.
    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
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
}

/// Removes the Nodes of all fake kubelets.
pub(super) async fn remove_all(context: &Context) -> Result<()> {
    context
        .kubectl(&["delete", "nodes", "--selector", LABEL, "--ignore-not-found"])
        .await?;
    Ok(())
}

/// Says where the kubelet is, and that it is well.
async fn tell(nodes: &Api<Node>, node: &str, address: SocketAddr) -> Result<()> {
    let now = Timestamp::now().to_string();
    let healthy = |kind: &str, status: &str| -> Value {
        json!({"type": kind, "status": status, "reason": "Fake", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let patch = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address.ip()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
        "conditions": [
            healthy("Ready", "True"),
            healthy("MemoryPressure", "False"),
            healthy("DiskPressure", "False"),
            healthy("PIDPressure", "False"),
        ],
    }});
    nodes
        .patch_status(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // What goes wrong on a connection is seen by whoever made it.
        tokio::spawn(answer(stream, Arc::clone(&state)));
    }
}

/// One request a connection, so that a changed certificate is seen with the next request.
async fn answer(stream: TcpStream, state: Arc<State>) -> Result<()> {
    let identity = state.shown().1.clone();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate], identity.key)?;
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.context("no whole request")?);
    }
    state.requests.fetch_add(1, Ordering::Relaxed);
    let behaviour = state.shown().0;
    let text = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
    match behaviour {
        Behaviour::Metrics => {
            let body = exposition(state.started.elapsed(), Timestamp::now());
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

/// A node that uses a tenth of a CPU and 1 GiB.
fn exposition(up: Duration, now: Timestamp) -> String {
    let time = now.as_millisecond();
    format!(
        "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {} {time}\n\
         # TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes 1.073741824e+09 {time}\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error 0\n",
        up.as_secs_f64() / 10.0
    )
}
