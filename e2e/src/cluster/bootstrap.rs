//! kubeadm's phases on running nodes: what `kubeadm init` and `kubeadm join` do, without an image registry and systemd.

mod approval;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::{select_all, try_join_all};
use serde_json::Value;
use tokio::sync::watch;

use self::approval::approve_serving;
use super::node::Node;
use super::spec::{ClusterSpec, POD_RANGE, ServingCertificates, cgroup_prefix, node_name};
use super::{Cluster, cgroup, config, logs};
use crate::progress::Progress;
use crate::tools::{self, Tools};
use crate::{command, host};

const CONFIG: &str = "/run/metricsstack-e2e/files/kubeadm.yaml";
const CONTAINERD_WITHIN: Duration = Duration::from_secs(30);
const API_WITHIN: Duration = Duration::from_mins(3);
const NODES_WITHIN: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(300);
/// What `kubeadm init` binds in phases that also want other things, and what lets kube-apiserver read logs.
const BINDINGS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "kubeadm:cluster-admins"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "kubeadm:cluster-admins"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kube-apiserver-kubelet-client}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:kubelet-api-admin"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "kubeadm:node-autoapprove-certificate-rotation"}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
"#;

/// Turns nodes into a cluster.
pub(crate) async fn bootstrap(cluster: &Cluster, tools: &Tools, progress: &Progress) -> Result<()> {
    let spec = cluster.spec();
    let (certificates, ready) = watch::channel(false);
    let nodes = cluster.nodes.iter().map(|node| {
        let (certificates, ready) = (certificates.clone(), ready.clone());
        async move {
            let name = node_name(node.number);
            configure(node, spec, tools)?;
            tokio::try_join!(
                containerd(node, tools, progress),
                kubeadm(node, cluster, certificates, ready, progress),
            )
            .map_err(|error| blame(cluster, &error, &[&format!("{name}/logs/containerd")]))?;
            // The kubelet starts pods at once, from images that must be there by then.
            let start = ". /var/lib/kubelet/kubeadm-flags.env; exec kubelet --kubeconfig=/etc/kubernetes/kubelet.conf \
                         --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS";
            node.spawn("kubelet", "sh", &["-c", start]).await
        }
    });
    try_join_all(nodes).await?;
    let control_plane = cluster.node(1)?;
    std::fs::copy(
        control_plane.file("/etc/kubernetes/admin.conf"),
        cluster.kubeconfig(),
    )
    .context("cannot copy the administrator's kubeconfig")?;
    progress
        .step("waiting for kube-apiserver", api(control_plane))
        .await
        .map_err(|error| {
            blame(
                cluster,
                &error,
                &["node-1/logs/kubelet", "kube-apiserver-", "etcd-"],
            )
        })?;
    let proxies = cluster.nodes.iter().map(|node| proxy(node, cluster.kubeconfig()));
    let settings = async {
        tokio::try_join!(settings(cluster), try_join_all(proxies))?;
        Ok(())
    };
    progress
        .step("settings in the cluster", unless_any_ended(cluster, settings))
        .await
        .map_err(|error| blame(cluster, &error, &["kube-apiserver-", "logs/kubelet"]))?;
    progress
        .step(
            "waiting for the nodes to be ready",
            unless_any_ended(cluster, nodes_ready(cluster)),
        )
        .await
        .map_err(|error| {
            blame(
                cluster,
                &error,
                &["logs/kubelet", "logs/containerd", "logs/kube-proxy"],
            )
        })?;
    if spec.kubelet_serving_certificates == ServingCertificates::Csr {
        progress
            .step(
                "approving the kubelets' serving certificates",
                unless_any_ended(cluster, approve_serving(cluster)),
            )
            .await
            .map_err(|error| blame(cluster, &error, &["logs/kubelet", "kube-controller-manager-"]))?;
    }
    Ok(())
}

/// Adds the last lines of the components that a failure may come from.
fn blame(cluster: &Cluster, error: &anyhow::Error, components: &[&str]) -> anyhow::Error {
    anyhow!(
        "cluster {}: {error:#}\n\n{}",
        cluster.name(),
        logs::of_failure(cluster.dir(), components).trim_end()
    )
}

fn configure(node: &Node, spec: &ClusterSpec, tools: &Tools) -> Result<()> {
    let cgroup = format!("{}{}", cgroup_prefix(&spec.name, &node.cluster), node.number);
    cgroup::create(&cgroup)?;
    let references = tools::references(tools.node_images())?;
    let sandbox = references.get("pause").context("no image of pause was packed")?;
    let plugins = host::cni_plugins().context("no CNI plugins")?;
    let certificates = spec.kubelet_serving_certificates;
    let files = node.folder().join("files");
    for (name, content) in [
        (
            "kubeadm.yaml",
            config::kubeadm(node.number, tools.kubernetes_version(), certificates, &cgroup),
        ),
        ("audit.yaml", config::audit().to_owned()),
        ("containerd.toml", config::containerd(sandbox, plugins)),
        ("cni/10-pods.conflist", config::cni(node.number)),
    ] {
        let file = files.join(name);
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Starts containerd and gives it the images that this node cannot pull.
async fn containerd(node: &Node, tools: &Tools, progress: &Progress) -> Result<()> {
    let name = node_name(node.number);
    let config = format!("{}/containerd.toml", config::FILES);
    node.spawn("containerd", "containerd", &["--config", &config])
        .await?;
    let answers = async || {
        let mut version = node.command("ctr");
        version.arg("version");
        command::output(version).await
    };
    progress
        .step(
            format_args!("{name}: containerd"),
            until(CONTAINERD_WITHIN, answers),
        )
        .await?;
    let wanted = tools
        .node_images()
        .iter()
        .filter(|image| node.number == 1 || image.reference.contains("/pause:"));
    let imports = wanted.map(|image| super::import(node, &image.archive));
    progress
        .step(
            format_args!("{name}: images of Kubernetes"),
            try_join_all(imports),
        )
        .await?;
    Ok(())
}

/// Runs kubeadm's phases up to the point where the kubelet can be started.
async fn kubeadm(
    node: &Node,
    cluster: &Cluster,
    certificates: watch::Sender<bool>,
    mut ready: watch::Receiver<bool>,
    progress: &Progress,
) -> Result<()> {
    let name = node_name(node.number);
    if node.number == 1 {
        progress
            .step(
                format_args!("{name}: certificates"),
                phase(node, &["certs", "all"]),
            )
            .await?;
        certificates.send_replace(true);
        for phase_name in [["kubeconfig", "all"], ["etcd", "local"], ["control-plane", "all"]] {
            progress
                .step(
                    format_args!("{name}: kubeadm {}", phase_name.join(" ")),
                    phase(node, &phase_name),
                )
                .await?;
        }
    } else {
        // A worker needs the authority that signs its kubelet's client certificate.
        drop(certificates);
        ready
            .wait_for(|ready| *ready)
            .await
            .context("the control plane's certificates were not made")?;
        let control_plane = cluster.node(1)?;
        for file in ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key"] {
            // Written inside the node: an overlay does not promise to show what is changed below it.
            let content = std::fs::read(control_plane.file(file)).with_context(|| format!("no {file}"))?;
            let mut write = node.command("sh");
            write.args(["-euc", "umask 077; mkdir -p \"${1%/*}\"; cat >\"$1\"", "sh", file]);
            command::output_of_input(write, &content).await?;
        }
        phase(node, &["kubeconfig", "kubelet"]).await?;
    }
    // It writes the kubelet's configuration and then fails to find systemd.
    let started = phase(node, &["kubelet-start"]).await;
    let written = [
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
    ];
    if !written.iter().all(|file| node.file(file).is_file()) {
        started?;
        bail!(
            "kubeadm init phase kubelet-start wrote no {}",
            written.join(" and no ")
        );
    }
    Ok(())
}

async fn phase(node: &Node, names: &[&str]) -> Result<()> {
    let mut kubeadm = node.command("kubeadm");
    kubeadm
        .args(["init", "phase"])
        .args(names)
        .arg(format!("--config={CONFIG}"));
    command::output(kubeadm).await.map(drop)
}

async fn api(control_plane: &Node) -> Result<()> {
    let ready = async || {
        let mut kubectl = control_plane.command("kubectl");
        kubectl.args([
            "--kubeconfig=/etc/kubernetes/super-admin.conf",
            "get",
            "--raw=/readyz",
        ]);
        command::output(kubectl).await
    };
    unless_ended(control_plane, "kubelet", until(API_WITHIN, ready))
        .await
        .map(drop)
}

/// Waits for something that does not come once a component has ended.
async fn unless_ended<T>(node: &Node, component: &str, wait: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = wait => done,
        ended = node.end_of(component) => Err(ended),
    }
}

async fn unless_any_ended<T>(cluster: &Cluster, wait: impl Future<Output = Result<T>>) -> Result<T> {
    let components = ["containerd", "kubelet", "kube-proxy"];
    let ends = cluster
        .nodes
        .iter()
        .flat_map(|node| components.map(|component| Box::pin(node.end_of(component))));
    tokio::select! {
        done = wait => done,
        (ended, ..) = select_all(ends) => Err(ended),
    }
}

/// What `kubeadm init` keeps in the cluster.
async fn settings(cluster: &Cluster) -> Result<()> {
    let control_plane = cluster.node(1)?;
    let mut bind = control_plane.command("kubectl");
    bind.args([
        "--kubeconfig=/etc/kubernetes/super-admin.conf",
        "apply",
        "-f",
        "-",
    ]);
    command::output_of_input(bind, BINDINGS.as_bytes()).await?;
    for names in [["upload-config", "all"].as_slice(), &["mark-control-plane"]] {
        let done = async || phase(control_plane, names).await;
        // Both write to the Node, which the kubelet registers about now.
        until(NODES_WITHIN, done).await?;
    }
    Ok(())
}

async fn proxy(node: &Node, kubeconfig: &Path) -> Result<()> {
    let own = node.folder().join("files/kube-proxy.conf");
    std::fs::copy(kubeconfig, &own).with_context(|| format!("cannot write {}", own.display()))?;
    let arguments = [
        "--proxy-mode=nftables",
        &format!("--kubeconfig={}/kube-proxy.conf", config::FILES),
        &format!("--cluster-cidr={POD_RANGE}"),
        &format!("--hostname-override={}", node_name(node.number)),
        // These limits are the machine's, not a node's.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
    ];
    node.spawn("kube-proxy", "kube-proxy", &arguments).await
}

async fn nodes_ready(cluster: &Cluster) -> Result<()> {
    let all_ready = async || {
        let nodes: Value = serde_json::from_str(&cluster.kubectl(["get", "nodes", "-o", "json"]).await?)?;
        let ready = items(&nodes).filter(|node| has_condition(node, "Ready")).count();
        if ready != usize::from(cluster.spec().nodes) {
            bail!("{ready} of {} nodes are ready", cluster.spec().nodes);
        }
        Ok(())
    };
    until(NODES_WITHIN, all_ready).await
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| {
            condition.get("type").is_some_and(|found| found == kind)
                && condition.get("status").is_some_and(|status| status == "True")
        })
    })
}

/// Asks until the answer is a success; gives the last failure once the time is over.
async fn until<T>(within: Duration, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut last = anyhow!("no answer");
    let asking = async {
        loop {
            match ask().await {
                Err(error) => last = error,
                Ok(answer) => return answer,
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(within, asking).await {
        Ok(answer) => Ok(answer),
        Err(_) => Err(last).with_context(|| format!("not within {} s", within.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_counts_when_it_is_true() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(has_condition(&ready, "Ready") && !has_condition(&ready, "DiskPressure"));
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(!has_condition(&unready, "Ready") && !has_condition(&json!({}), "Ready"));
    }
}
