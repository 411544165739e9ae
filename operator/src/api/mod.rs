//! The `MetricsStack` resource. Its documentation comments become the descriptions in the CRD: they are for users.

#![expect(
    unreachable_pub,
    reason = "KubeSchema makes copies of the types inside of functions"
)]

mod crd;
mod schema;
mod status;
mod words;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crd::crd;
pub use status::{
    AggregationStatus, ApiServerStatus, ApiServiceStatus, CertificateStatus, FailingKubelets, FindingStatus,
    KubeletsStatus, MetricsStackStatus, ProxyClientStatus,
};
pub use words::{
    AddressType, AdoptPolicy, CertificateIssuer, ImagePullPolicy, KubeletSource, LogFormat, LogLevel,
    MonitoringMode, NetworkPolicyMode, TlsMode,
};

/// What the Metrics API of this cluster shall be like. Every field is optional: an empty spec gives a working,
/// verified, self-renewing Metrics API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "metricsstack.dev",
    version = "v1alpha1",
    kind = "MetricsStack",
    status = "MetricsStackStatus",
    shortname = "mstack",
    derive = "PartialEq",
    derive = "Default",
    doc = "MetricsStack gives a cluster the Metrics API (metrics.k8s.io): `kubectl top` and HorizontalPodAutoscalers on CPU and memory. There is one in a cluster, named `default`.",
    validation = Rule::new("self.metadata.name == 'default'")
        .message("a cluster has one MetricsStack, and its name is \"default\": set metadata.name to \"default\""),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether everything works"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.kubelets.summary",
        description = "Nodes whose kubelet answers, of all"),
    printcolumn(name = "API", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status",
        description = "Whether metrics can be read through the aggregation layer"),
    printcolumn(name = "Certs", type_ = "string", json_path = ".status.nextCertificateExpiry",
        description = "When the next certificate expires; it is renewed well before"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Finding", type_ = "string", json_path = ".status.findings[0].message", priority = 1,
        description = "The most important finding"),
)]
#[serde(rename_all = "camelCase")]
pub struct MetricsStackSpec {
    /// The metrics-api Deployment: the extension API server that scrapes kubelets and answers `metrics.k8s.io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_api: Option<MetricsApiSpec>,
    /// How kubelets are found, reached and trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletSpec>,
    /// Lifetimes of the certificates that the operator makes and renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesSpec>,
    /// `Enabled`: a `NetworkPolicy` lets metrics-api's Pods be reached at their port only, and reach no ports but those of
    /// kubelets, of kube-apiserver and of DNS. `Disabled` (default): there is none. With `hostNetwork` there is none
    /// either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicyMode>,
    /// What Prometheus and Grafana are told, where the cluster has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<MonitoringSpec>,
    /// The registration of `metrics.k8s.io` with kube-apiserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_service: Option<ApiServiceSpec>,
}

/// See [`MetricsStackSpec::metrics_api`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.hostNetwork) && self.hostNetwork && has(self.port) && self.port == 10250)")
    .message("port 10250 is the kubelet's in a node's network: set another, or leave it out for 4443"))]
pub struct MetricsApiSpec {
    /// Image with the metrics-api program. Default: the image that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// When the image is pulled. Default: as the operator's own image (the chart's `imagePullPolicy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets in the operator's namespace with credentials of the image's registry. Default: those of the operator's own
    /// image (the chart's `imagePullSecrets`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::image_pull_secrets")]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// Number of replicas, each of which scrapes every node. Default: 2, or 1 where only one node can run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub replicas: Option<i32>,
    /// CPU and memory of each replica. Default: requests by the number of nodes, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// How often each kubelet is scraped, from `10s` to `5m`. Default: `15s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('5m')")
        .message("must be a duration from 10s to 5m"))]
    pub resolution: Option<String>,
    /// Labels of the nodes that may run metrics-api, besides `kubernetes.io/os: linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that metrics-api tolerates. Default: those of control-plane nodes and of nodes for critical add-ons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Scheduling affinity. Default: replicas run on different nodes. What is given here replaces that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How replicas are spread over zones and the like. Default: over zones as evenly as can be. What is given here
    /// replaces that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Whether the Pods use their node's network, for clusters whose control plane does not reach Pods. A replica is
    /// then stopped before the next one takes its port. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// Port of the Pods. Default: 10250, which private clusters let their control plane reach; with `hostNetwork` 4443,
    /// since 10250 is the kubelet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: Option<i32>,
    /// Priority class of the Pods. Default: `system-cluster-critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// How much is logged. Default: `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// How a log line looks. Default: `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// CPU and memory of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// What the scheduler reserves, such as `cpu: 100m` and `memory: 64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: Option<BTreeMap<String, IntOrString>>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: Option<BTreeMap<String, IntOrString>>,
}

/// See [`MetricsStackSpec::kubelet`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletSpec {
    /// What is read of a kubelet. `Auto` (default): `/metrics/resource`, or its Summary API where that path is missing.
    /// `ResourceMetrics`: the first only. `Summary`: the second only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<KubeletSource>,
    /// Types of Node addresses to dial, the best first. Default: `InternalIP`, `Hostname`, `InternalDNS`,
    /// `ExternalDNS`, `ExternalIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub address_types: Option<Vec<AddressType>>,
    /// Labels of the nodes that are scraped. Default: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// How a kubelet proves who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<KubeletTlsSpec>,
    /// Whether requests of kubelets for serving certificates (signer `kubernetes.io/kubelet-serving`, which kubelets with
    /// `serverTLSBootstrap: true` make) are approved where everything holds: a node asks, for itself, by names and
    /// addresses that its Node object has. Forgeries are denied. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve_serving_certificates: Option<bool>,
    /// With `approveServingCertificates`: where addresses in such certificates must be, such as `10.0.0.0/8`. Default:
    /// anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::address_prefixes")]
    pub serving_certificate_address_prefixes: Option<Vec<String>>,
}

/// See [`KubeletSpec::tls`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.caBundle) && has(self.mode) && self.mode == 'Insecure')")
    .message("caBundle has no use with mode Insecure: remove it, or set mode to Auto or Verify"))]
pub struct KubeletTlsSpec {
    /// `Auto` (default): a kubelet's certificate must chain to the cluster's CA and name the address; one that does
    /// not chain is pinned by its public key on first use, and a changed key is refused. `Verify`: it must chain.
    /// `Insecure`: nothing is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Certificate authorities of kubelets' serving certificates. Default: the cluster's CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundleSpec>,
}

/// See [`KubeletTlsSpec::ca_bundle`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.inline) != has(self.configMap)")
    .message("set either inline or configMap"))]
pub struct CaBundleSpec {
    /// The certificates themselves, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub inline: Option<String>,
    /// A `ConfigMap` in the operator's namespace that has them. What changes there is taken up within three minutes, without
    /// a restart; what is no bundle of certificates is named in the status, and the last good one stays in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKeySpec>,
}

/// See [`CaBundleSpec::config_map`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeySpec {
    /// Name of the `ConfigMap`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The key in its data. Default: `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
}

/// See [`MetricsStackSpec::certificates`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.caValidity) || !has(self.leafValidity) || duration(self.leafValidity) <= duration(self.caValidity)")
    .message("leafValidity must not be longer than caValidity"))]
#[x_kube(validation = Rule::new("(has(self.issuer) && self.issuer == 'Secret') == has(self.secretName)")
    .message("issuer Secret and secretName come together: set both, or neither"))]
#[x_kube(validation = Rule::new(
    "!(has(self.secretName) && (has(self.caValidity) || has(self.leafValidity)))")
    .message("caValidity and leafValidity have no use with issuer Secret: remove them"))]
pub struct CertificatesSpec {
    /// `Managed` (default): the operator makes the certificates and renews them. `Secret`: somebody else does, such as
    /// cert-manager, and keeps the serving certificate in `secretName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<CertificateIssuer>,
    /// With issuer `Secret`: a Secret in the operator's namespace with `tls.crt` for `metrics-api.<namespace>.svc`,
    /// `tls.key`, and in `ca.crt` the authority that it leads to. A changed Secret is taken up without a failed request;
    /// one that is not good is named in the status, and the last good one stays in use. The operator may read
    /// `metrics-api-tls` and what the chart's `certificateSecretNames` says instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub secret_name: Option<String>,
    /// Lifetime of the next certificate authority, from `3m` to `87600h`. When a fifth of it is left, the next one takes
    /// over without a failed request. Default: `87600h` (ten years).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('3m') && duration(self) <= duration('87600h')")
        .message("must be a duration from 3m to 87600h"))]
    pub ca_validity: Option<String>,
    /// Lifetime of the serving certificate, from `1m` to `87600h`. It is renewed, without a restart, when a third
    /// of it is left. Default: `2160h` (90 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('87600h')")
        .message("must be a duration from 1m to 87600h"))]
    pub leaf_validity: Option<String>,
}

/// See [`MetricsStackSpec::monitoring`]. `Auto` (default of each): where the cluster has the kinds of the Prometheus
/// operator (`monitoring.coreos.com`), for as long as it has them. `Disabled`: not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// A `ServiceMonitor` for metrics-api and a `PodMonitor` for the operator: `Auto` (default) where the cluster has
    /// those kinds, or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_monitor: Option<MonitoringMode>,
    /// A `PrometheusRule` with alerts: `Auto` (default) where the cluster has that kind, or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<MonitoringMode>,
    /// A `ConfigMap` with a dashboard, which Grafana's sidecar finds by its label `grafana_dashboard`: `Auto` (default)
    /// where the cluster has any kind of the Prometheus operator, or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<MonitoringMode>,
    /// Labels of these objects, for a Prometheus that selects by some, such as `release: kube-prometheus-stack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// See [`MetricsStackSpec::api_service`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServiceSpec {
    /// What becomes of an APIService of `metrics.k8s.io` that belongs to another program, such as metrics-server. `Never`
    /// (default): it is left alone, and nothing is registered beside it. `Unmanaged`: it is taken over if its Service has
    /// been gone or without endpoints for a minute. `Always`: also if it works, once metrics-api is ready. The other
    /// program is left running and named in the status; when the stack is deleted, it gets the APIService back if it
    /// still runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<AdoptPolicy>,
}

#[cfg(test)]
mod tests;
