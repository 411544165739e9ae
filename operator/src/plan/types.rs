//! What a plan is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};

use crate::api::{AddressType, ImagePullPolicy, KubeletSource, LogFormat, LogLevel, TlsMode};
use crate::certificates::Certificates;
use crate::monitoring::MonitoringKind;

/// What shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Namespace of everything that has one.
    pub namespace: String,
    /// The Deployment.
    pub metrics_api: MetricsApiPlan,
    /// What metrics-api is told about kubelets.
    pub kubelet: KubeletPlan,
    /// The certificates, made or kept.
    pub certificates: Certificates,
    /// Why somebody else's certificate is not taken. The last good one is used.
    pub given_fault: Option<String>,
    /// Which certificates are new, and why: `metrics-api-ca: there is none`.
    pub renewed: Vec<String>,
    /// Whether the `APIServices` are due.
    pub registration: Registration,
    /// The `APIServices` to take over from somebody else.
    pub adopts: BTreeSet<String>,
    /// What adopted `APIServices` were before, by name.
    pub former: BTreeMap<String, String>,
    /// What metrics-api's Pods may reach.
    pub network_policy: NetworkPolicyPlan,
    /// What Prometheus and Grafana are told.
    pub monitoring: MonitoringPlan,
    /// What is wrong with the spec. The rest of the plan is then that of the last good one, as far as it is known.
    pub problems: Vec<Problem>,
    /// Whether what follows from spec and nodes (the Deployment and what its flags rest on) is left as it is, because
    /// one of these is not known.
    pub keeps_workload: bool,
    /// When a certificate falls due: the next reconcile at the latest.
    pub next_check: Option<Timestamp>,
}

/// See [`Plan::metrics_api`].
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsApiPlan {
    /// Image.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Names of Secrets with credentials.
    pub image_pull_secrets: Vec<String>,
    /// Replicas.
    pub replicas: i32,
    /// CPU and memory.
    pub resources: ResourceRequirements,
    /// Since when less would do.
    pub smaller_since: Option<Timestamp>,
    /// Time between scrapes of a kubelet.
    pub resolution: Duration,
    /// Labels of nodes, complete.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerated taints.
    pub tolerations: Vec<Toleration>,
    /// Where replicas go.
    pub placement: Placement,
    /// How they are spread over zones and the like.
    pub topology_spread: Vec<TopologySpreadConstraint>,
    /// Whether the Pods use their node's network.
    pub host_network: bool,
    /// Port of the Pods.
    pub port: u16,
    /// Priority class.
    pub priority_class_name: String,
    /// Log level.
    pub log_level: LogLevel,
    /// Log format.
    pub log_format: LogFormat,
}

/// See [`Plan::network_policy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkPolicyPlan {
    /// Everything: there is none.
    Absent,
    /// What the one that exists says, since not enough was seen for another.
    Kept,
    /// These ports, and the cluster's DNS.
    Wanted(EgressPorts),
}

/// See [`Plan::monitoring`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitoringPlan {
    /// The kinds that the cluster has. `None` if that is not known now: then all stays as it is.
    pub kinds: Option<BTreeSet<MonitoringKind>>,
    /// Whether metrics are scraped.
    pub service_monitor: bool,
    /// Whether there are alerts.
    pub rules: bool,
    /// Whether there is a dashboard.
    pub dashboard: bool,
    /// Labels of all this.
    pub labels: BTreeMap<String, String>,
}

impl MonitoringPlan {
    /// Whether there is a monitor of this kind.
    #[must_use]
    pub fn scrapes(&self, kind: MonitoringKind) -> bool {
        self.service_monitor && self.kinds.as_ref().is_some_and(|kinds| kinds.contains(&kind))
    }
}

/// Ports that metrics-api connects to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPorts {
    /// Of kubelets.
    pub kubelets: BTreeSet<u16>,
    /// Of kube-apiservers.
    pub api_servers: BTreeSet<u16>,
}

/// Where replicas go.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// As the stack says.
    Custom(Box<Affinity>),
    /// Never two on one node.
    Apart,
    /// On different nodes as far as there are any.
    PreferApart,
}

/// Where addresses in certificates must be; none given: anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPrefixes(pub Vec<IpNet>);

impl AddressPrefixes {
    /// Whether this address is in one of them.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|prefix| prefix.contains(&address))
    }
}

/// See [`Plan::kubelet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletPlan {
    /// Types of addresses, the best first.
    pub address_types: Vec<AddressType>,
    /// Labels of the nodes to scrape; empty: all.
    pub node_selector: BTreeMap<String, String>,
    /// Which of their endpoints is read.
    pub source: KubeletSource,
    /// How certificates are judged.
    pub tls_mode: TlsMode,
    /// Whom certificates must chain to.
    pub authorities: KubeletAuthorities,
    /// Where addresses must be in kubelets' requests for certificates; `None` if those are not decided on.
    pub approves: Option<AddressPrefixes>,
}

/// See [`KubeletPlan::authorities`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletAuthorities {
    /// The cluster's own.
    Cluster,
    /// These, PEM.
    Given(String),
    /// Those that were given before, if there are any: where they come from cannot be read, or holds none.
    Kept {
        /// What is wrong there, if it could be read.
        fault: Option<String>,
    },
}

/// Whether the `APIServices` are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// They shall be there.
    Register,
    /// Not before an endpoint is ready.
    AwaitEndpoint,
    /// Not while these belong to somebody else; none of the group then.
    Withheld(Vec<ForeignApiService>),
}

/// An `APIService` of the group that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignApiService {
    /// Its name.
    pub name: String,
    /// The Service it points at, as `namespace/name`, or `Local`.
    pub service: String,
    /// Who put it there, if that can be told.
    pub owner: Option<String>,
}

/// Why there is no plan. What runs is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The spec asks for what cannot be, and nothing runs that could be kept.
    #[error("{}", in_words(.0))]
    InvalidSpec(Vec<Problem>),
    /// Somebody else's certificate is not good, and there is none before it.
    #[error("{0}")]
    GivenCertificate(String),
    /// No certificate could be made.
    #[error("{0}")]
    Certificates(String),
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its path.
    pub field: &'static str,
    /// What it holds, in words.
    pub found: String,
    /// What it may hold.
    pub expected: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; expected {}", self.field, self.found, self.expected)
    }
}

/// Problems, one after the other.
pub(crate) fn in_words(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(". ")
}
