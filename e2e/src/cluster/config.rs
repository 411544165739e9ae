//! The configuration files of a node: kubeadm's, containerd's, CNI's.

use std::path::Path;

use super::spec::{POD_RANGE, ServingCertificates, node_address, node_name, node_pod_range};

/// Where a node sees its own configuration.
pub(crate) const FILES: &str = "/run/metricsstack-e2e/files";
/// Where a node sees the programs.
pub(crate) const TOOLS: &str = "/run/metricsstack-e2e/tools";
/// kube-apiserver's audit log, as node 1 sees it.
pub(crate) const AUDIT_LOG: &str = "/var/log/kubernetes/audit.log";
const AUDIT_LOG_FOLDER: &str = "/var/log/kubernetes";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// kubeadm's configuration of one node. What is not here is kubeadm's default.
pub(crate) fn kubeadm(
    node: u8,
    kubernetes_version: &str,
    certificates: ServingCertificates,
    cgroup: &str,
) -> String {
    let server_tls_bootstrap = match certificates {
        ServingCertificates::SelfSigned => "",
        ServingCertificates::Csr | ServingCertificates::CsrPending => "serverTLSBootstrap: true\n",
    };
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: {control_plane}
  bindPort: 6443
nodeRegistration:
  name: {name}
  criSocket: unix://{CONTAINERD_SOCKET}
  # The control plane's node runs pods as well.
  taints: []
  kubeletExtraArgs:
    - name: node-ip
      value: {address}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {kubernetes_version}
networking:
  podSubnet: {POD_RANGE}
apiServer:
  extraArgs:
    - name: audit-policy-file
      value: {FILES}/audit.yaml
    - name: audit-log-path
      value: {AUDIT_LOG}
    - name: audit-log-maxsize
      value: \"1000\"
  extraVolumes:
    - name: audit-policy
      hostPath: {FILES}/audit.yaml
      mountPath: {FILES}/audit.yaml
      readOnly: true
      pathType: File
    - name: audit-log
      hostPath: {AUDIT_LOG_FOLDER}
      mountPath: {AUDIT_LOG_FOLDER}
      pathType: DirectoryOrCreate
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
failSwapOn: false
# The machine's disk is not the node's, and an image that is collected cannot be pulled again.
evictionHard:
  memory.available: 1Mi
imageGCHighThresholdPercent: 100
{server_tls_bootstrap}",
        control_plane = node_address(1),
        name = node_name(node),
        address = node_address(node),
    )
}

/// What kube-apiserver keeps a log of: calls of our programs, so that tests see their writes and their rights.
pub(crate) fn audit() -> &'static str {
    "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: [\"system:serviceaccounts:metricsstack-system\"]
  - level: None
"
}

/// containerd's configuration.
pub(crate) fn containerd(sandbox_image: &str, cni_plugins: &Path) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox_image}"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE no sandbox could start otherwise.
  restrict_oom_score_adj = true

  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{}"]
    conf_dir = "{FILES}/cni"
"#,
        cni_plugins.display()
    )
}

/// The pod network: a bridge a node. Pods keep their address towards other nodes and the switch, which have routes.
pub(crate) fn cni(node: u8) -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": false,
      "hairpinMode": true,
      "ipam": {{
        "type": "host-local",
        "ranges": [[{{ "subnet": "{}" }}]],
        "routes": [{{ "dst": "0.0.0.0/0" }}]
      }}
    }},
    {{ "type": "portmap", "capabilities": {{ "portMappings": true }} }}
  ]
}}
"#,
        node_pod_range(node)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_kubeadm_self_signed() {
        insta::assert_snapshot!(kubeadm(
            1,
            "v1.37.2",
            ServingCertificates::SelfSigned,
            "metricsstack-e2e-dev-1"
        ));
    }

    #[test]
    fn golden_kubeadm_csr_of_a_worker() {
        insta::assert_snapshot!(kubeadm(
            2,
            "v1.37.2",
            ServingCertificates::Csr,
            "metricsstack-e2e-dev-2"
        ));
    }

    #[test]
    fn golden_containerd() {
        insta::assert_snapshot!(containerd(
            "registry.k8s.io/pause:3.10.2",
            Path::new("/usr/lib/cni")
        ));
    }

    #[test]
    fn golden_cni() {
        let rendered = cni(2);
        serde_json::from_str::<serde_json::Value>(&rendered).unwrap();
        insta::assert_snapshot!(rendered);
    }
}
