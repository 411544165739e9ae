//! What the operator reports about a `MetricsStack`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What works, what does not, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsStackStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` sums up the others: `AggregationReady`, `CertificatesReady`, `MetricsApiReady`, `KubeletsReachable`,
    /// `Available` (metrics were read through the aggregation layer). `Degraded` is True when something needs
    /// attention, even if everything works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What is wrong or worth knowing, the most important first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingStatus>,
    /// The aggregation layer, as kube-apiserver publishes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<AggregationStatus>,
    /// The `APIServices` of `metrics.k8s.io`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_services: Vec<ApiServiceStatus>,
    /// The certificates that the operator made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// When the next of these certificates expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_certificate_expiry: Option<Time>,
    /// The kubelets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelets: Option<KubeletsStatus>,
}

/// What is wrong or worth knowing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingStatus {
    /// Stable name of this kind of finding.
    pub reason: String,
    /// What was found.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// The aggregation layer, as kube-apiserver publishes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AggregationStatus {
    /// Names that a front-proxy certificate may have; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_names: Vec<String>,
    /// The front-proxy certificate that kube-apiserver shows metrics-api; the first to end, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_client: Option<ProxyClientStatus>,
    /// Each kube-apiserver, and whether metrics can be read through it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_servers: Vec<ApiServerStatus>,
}

/// See [`AggregationStatus::proxy_client`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyClientStatus {
    /// Its common name.
    pub common_name: String,
    /// When it expires.
    pub not_after: Time,
}

/// One kube-apiserver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServerStatus {
    /// Its address and port.
    pub address: String,
    /// Whether metrics can be read through it: `True`, `False`, or `Unknown` if it cannot be reached singly.
    pub available: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One APIService.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServiceStatus {
    /// Its name.
    pub name: String,
    /// The Service it points at, as `namespace/name`; `Local` when kube-apiserver answers itself.
    pub service: String,
    /// Whether this operator keeps it.
    pub managed: bool,
    /// Who keeps it if that is somebody else, as far as its labels, annotations and `managedFields` tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its `Available` condition.
    pub available: String,
    /// The reason of that condition.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Name of its Secret.
    pub name: String,
    /// When it expires.
    pub not_after: Time,
    /// When it is renewed; absent where somebody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<Time>,
}

/// The kubelets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletsStatus {
    /// How many answer, of how many: `2/3`.
    pub summary: String,
    /// How many are scraped.
    pub total: i32,
    /// How many answered at the last attempt.
    pub answering: i32,
    /// How many are trusted by a public key pinned on first use.
    pub pinned: i32,
    /// Those that did not answer, by the kind of failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<FailingKubelets>,
}

/// Kubelets that fail in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingKubelets {
    /// The kind of failure.
    pub reason: String,
    /// How many fail so.
    pub count: i32,
    /// Up to three of them, as `node: message`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}
