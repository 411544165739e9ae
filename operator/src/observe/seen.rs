//! What was seen of the cluster: plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use contract::names;
use contract::report::NodeReport;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Taint};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt as _;

use crate::adopt::FormerServer;
use crate::certificates::{BUNDLE, Usage};
use crate::contest::Contest;
use crate::desired::PORT_NAME;
use crate::monitoring::MonitoringKind;
use crate::registration;
use crate::rotation::Served;

/// Everything seen. Plain data: nothing here asks the cluster again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// When it was.
    pub at: Timestamp,
    /// The operator's namespace.
    pub namespace: String,
    /// Every Node, with what scheduling needs. Those of an earlier look where they cannot be read now.
    pub nodes: Vec<NodeFacts>,
    /// The Secret with the certificate authority.
    pub ca_secret: Option<Secret>,
    /// The Secret with the serving certificate.
    pub serving_secret: Option<Secret>,
    /// Somebody else's Secret that the stack takes it from: what is there under that name, or why it cannot be read.
    pub given_secret: Option<Result<Option<Secret>, String>>,
    /// The ConfigMap that the stack takes kubelets' authorities from, by its name, if it could be read: what is there.
    pub kubelet_authorities: BTreeMap<String, Option<ConfigMap>>,
    /// metrics-api's Deployment.
    pub deployment: Option<Deployment>,
    /// The Pods of that Deployment.
    pub pods: Vec<Pod>,
    /// Ready addresses behind the Service.
    pub ready_endpoints: usize,
    /// The `APIServices` of the group's versions that exist, whoever they belong to.
    pub api_services: Vec<APIService>,
    /// What kube-apiserver publishes for extension API servers.
    pub authentication: Option<ConfigMap>,
    /// The front-proxy certificate that ends first of those that any replica was shown lately.
    pub front_proxy_certificate: Option<FrontProxyCertificate>,
    /// What each ready replica says about the nodes.
    pub replicas: Vec<Replica>,
    /// The certificate that each running replica serves.
    pub served: Vec<Served>,
    /// Who knows and uses the certificates.
    pub usage: Usage,
    /// Each kube-apiserver by its address, and the result of a list through its aggregator; `None` for one that cannot
    /// be reached singly.
    pub api_servers: Vec<(SocketAddr, Option<Read>)>,
    /// Result of a list through the aggregators.
    pub read: Read,
    /// Namespaces that cannot be deleted because of the group, as far as something fails.
    pub stuck_namespaces: Vec<String>,
    /// Nodes whose kubelets have asked for serving certificates and got no answer, as far as some fail.
    pub waiting_kubelets: BTreeSet<String>,
    /// Objects with a name of ours but without our label. They were not touched.
    pub conflicts: Vec<Conflict>,
    /// Objects of ours that somebody else keeps changing.
    pub contests: Vec<Contest>,
    /// Whether certificates that shall be are not stored: one is contested, or was changed meanwhile.
    pub certificates_unstored: bool,
    /// The kinds of the Prometheus operator that the cluster has, if that could be seen.
    pub monitoring_kinds: Option<BTreeSet<MonitoringKind>>,
    /// Servers that adopted `APIServices` pointed at before, and that still run.
    pub former_servers: Vec<FormerServer>,
    /// What could not be applied and why, in one line.
    pub apply_error: Option<String>,
    /// The same about what is for Prometheus and Grafana.
    pub monitoring_errors: Vec<String>,
    /// What could not be read and why, in one line each. It is empty above, which does not mean that there is none.
    pub unseen: BTreeMap<Part, String>,
}

impl Observed {
    /// Whether this `APIService` is ours.
    #[must_use]
    pub fn owns(&self, service: &APIService) -> bool {
        registration::is_ours(service, &self.namespace)
    }

    /// The authorities that replicas' certificates may be from, PEM.
    #[must_use]
    pub fn bundle(&self) -> Option<&[u8]> {
        [
            // The operator's own authority may be there still, while somebody else's has taken over.
            (&self.serving_secret, BUNDLE),
            (&self.ca_secret, BUNDLE),
            (&self.ca_secret, names::TLS_CERTIFICATE),
        ]
        .into_iter()
        .find_map(|(secret, key)| Some(secret.as_ref()?.data.as_ref()?.get(key)?.0.as_slice()))
    }

    /// Whether this part could be read.
    #[must_use]
    pub fn sees(&self, part: Part) -> bool {
        !self.unseen.contains_key(&part)
    }
}

/// A front-proxy certificate that was shown to metrics-api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxyCertificate {
    /// Its common name.
    pub common_name: String,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl FrontProxyCertificate {
    /// The one that ends first of those that any replica was shown: each kube-apiserver has its own.
    pub(super) fn first_to_end(replicas: &[Replica]) -> Option<Self> {
        let reports = replicas.iter().filter_map(|replica| replica.report.as_ref().ok());
        let shown = reports
            .flat_map(|report| &report.front_proxy_certificates)
            .filter_map(|shown| {
                Some(Self {
                    common_name: shown.common_name.clone(),
                    not_before: shown.not_before.parse().ok()?,
                    not_after: shown.not_after.parse().ok()?,
                })
            });
        shown.min_by_key(|shown| shown.not_after)
    }
}

/// What the operator can do without seeing: certificates and the registration are kept all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The Nodes.
    Nodes,
    /// metrics-api's Deployment.
    Deployment,
    /// Its Pods.
    Pods,
    /// Its Service's endpoints.
    Endpoints,
    /// What kube-apiserver publishes for extension API servers.
    FrontProxy,
    /// The `ConfigMap` with kubelets' authorities.
    KubeletAuthorities,
}

impl Part {
    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Nodes => "the Nodes",
            Self::Deployment => "metrics-api's Deployment",
            Self::Pods => "metrics-api's Pods",
            Self::Endpoints => "metrics-api's EndpointSlices",
            Self::KubeletAuthorities => "the ConfigMap of spec.kubelet.tls.caBundle",
            Self::FrontProxy => "ConfigMap kube-system/extension-apiserver-authentication",
        }
    }
}

/// What is needed to know of a Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Port of its kubelet.
    pub kubelet_port: u16,
    /// The addresses and names that it says it has.
    pub addresses: Vec<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// Where a kubelet listens that does not say.
const KUBELET_PORT: u16 = 10250;

impl From<&Node> for NodeFacts {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name_any(),
            labels: node.labels().clone(),
            taints: node
                .spec
                .as_ref()
                .and_then(|spec| spec.taints.clone())
                .unwrap_or_default(),
            kubelet_port: kubelet_port(node).unwrap_or(KUBELET_PORT),
            addresses: node
                .status
                .iter()
                .flat_map(|status| status.addresses.iter().flatten())
                .map(|address| address.address.clone())
                .collect(),
            created: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }
}

fn kubelet_port(node: &Node) -> Option<u16> {
    let endpoints = node.status.as_ref()?.daemon_endpoints.as_ref()?;
    let port = endpoints.kubelet_endpoint.as_ref()?.port;
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// The port that a Pod of metrics-api serves at.
pub(crate) fn serving_port(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .find(|port| port.name.as_deref() == Some(PORT_NAME))
        .and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(names::METRICS_API_PORT)
}

/// One replica of metrics-api.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Name of its Pod.
    pub pod: String,
    /// Its node report, or why there is none, in one line.
    pub report: Result<NodeReport, String>,
}

/// Result of a list through the aggregator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// None was made: the `APIServices` are not there yet.
    #[default]
    NotTried,
    /// Every version answered.
    Succeeded,
    /// A version did not.
    Failed {
        /// That version.
        version: String,
        /// Why, in one line.
        reason: String,
    },
}

/// An object with a name of ours that belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Kind, namespace and name: `Service metricsstack-system/metrics-api`.
    pub object: String,
}

#[cfg(test)]
mod tests {
    use contract::report;

    use super::*;

    #[test]
    fn the_first_to_end_counts_whichever_replica_was_shown_it() {
        let shown = |common_name: &str, not_after: &str| report::FrontProxyCertificate {
            common_name: common_name.to_owned(),
            not_before: "2026-01-01T00:00:00Z".to_owned(),
            not_after: not_after.to_owned(),
        };
        let replica = |shown: Vec<report::FrontProxyCertificate>| Replica {
            pod: "metrics-api-1".to_owned(),
            report: Ok(NodeReport {
                front_proxy_certificates: shown,
                ..NodeReport::default()
            }),
        };
        let a = shown("a", "2027-01-01T00:00:00Z");
        let replicas = [
            replica(vec![a.clone(), shown("c", "never")]),
            replica(vec![shown("b", "2026-12-01T00:00:00Z"), a]),
        ];
        let first = FrontProxyCertificate::first_to_end(&replicas).unwrap();
        assert_eq!(
            (first.common_name.as_str(), first.not_after.to_string()),
            ("b", "2026-12-01T00:00:00Z".to_owned())
        );
        assert_eq!(FrontProxyCertificate::first_to_end(&[]), None);
    }
}
