//! What exists, what the control plane publishes, what answers.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::names;
use contract::report::NodeReport;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Taint};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::cluster::{self, KUBE_SYSTEM};
use crate::reports;

/// Everything seen. Plain data: nothing here asks the cluster again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Every Node, with what scheduling needs.
    pub nodes: Vec<NodeFacts>,
    /// The Secret with the certificate authority.
    pub ca_secret: Option<Secret>,
    /// The Secret with the serving certificate.
    pub serving_secret: Option<Secret>,
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
    /// What each ready replica says about the nodes.
    pub replicas: Vec<Replica>,
    /// Result of a list through the aggregator.
    pub read: Read,
    /// Objects with a name of ours but without our label. They were not touched.
    pub conflicts: Vec<Conflict>,
    /// What could not be applied and why, in one line.
    pub apply_error: Option<String>,
}

/// What scheduling needs to know of a Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
}

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
        }
    }
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

/// Nodes asked for at once: a Node is some 15 kB, most of it images and fields that are dropped on arrival.
const NODE_PAGE: u32 = 100;
/// How long the list of nodes is good for. It decides the number of replicas and their size, which can wait.
const NODES_FRESH: Duration = Duration::from_mins(1);

/// Something could not be read. What was not seen must not count as absent: a certificate authority would be replaced.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what}: {}", cluster::describe(.source))]
pub struct ObserveError {
    what: &'static str,
    source: kube::Error,
}

/// Looks at the cluster.
pub struct Observer {
    client: Client,
    namespace: String,
    reports: reports::Reader,
    nodes: Option<(Instant, Vec<NodeFacts>)>,
}

impl Observer {
    /// For an operator in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, reports: reports::Reader) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            reports,
            nodes: None,
        }
    }

    /// Everything but [`Observed::read`] and what an apply finds out.
    pub async fn observe(&mut self) -> Result<Observed, ObserveError> {
        let nodes = self.nodes().await?;
        let secrets: Api<Secret> = self.own();
        let deployments: Api<Deployment> = self.own();
        let pods: Api<Pod> = self.own();
        let endpoints: Api<EndpointSlice> = self.own();
        let kube_system: Api<ConfigMap> = Api::namespaced(self.client.clone(), KUBE_SYSTEM);
        let of_pods = ListParams::default().labels(&pod_labels());
        let of_service = ListParams::default().labels(&endpoint_labels());
        let (ca_secret, serving_secret, deployment, pods, endpoints, api_services, authentication) = tokio::try_join!(
            named(
                "the certificate authority's Secret",
                secrets.get_opt(names::CA_SECRET)
            ),
            named(
                "the serving certificate's Secret",
                secrets.get_opt(names::SERVING_SECRET)
            ),
            named(
                "metrics-api's Deployment",
                deployments.get_opt(names::METRICS_API)
            ),
            named("metrics-api's Pods", pods.list(&of_pods)),
            named("metrics-api's EndpointSlices", endpoints.list(&of_service)),
            named("the APIServices", cluster::api_services(&self.client)),
            named(
                "kube-system/extension-apiserver-authentication",
                kube_system.get_opt(names::AUTHENTICATION_CONFIG_MAP)
            ),
        )?;
        let pods = pods.items;
        let replicas = self.reports.read(&pods, ca_secret.as_ref()).await;
        Ok(Observed {
            nodes,
            ca_secret,
            serving_secret,
            deployment,
            pods,
            ready_endpoints: ready_endpoints(&endpoints.items),
            api_services,
            authentication,
            replicas,
            ..Observed::default()
        })
    }

    fn own<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn nodes(&mut self) -> Result<Vec<NodeFacts>, ObserveError> {
        if let Some((_, nodes)) = self
            .nodes
            .as_ref()
            .filter(|(read, _)| read.elapsed() < NODES_FRESH)
        {
            return Ok(nodes.clone());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let mut nodes = Vec::new();
        let mut page = ListParams::default().limit(NODE_PAGE);
        loop {
            let list = named("the Nodes", api.list(&page)).await?;
            nodes.extend(list.items.iter().map(NodeFacts::from));
            match list.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                _ => break,
            }
        }
        self.nodes = Some((Instant::now(), nodes.clone()));
        Ok(nodes)
    }
}

/// Selects metrics-api's Pods.
fn pod_labels() -> String {
    format!(
        "{}={},{}={}",
        names::NAME_LABEL,
        names::METRICS_API,
        names::STACK_LABEL,
        names::STACK_NAME
    )
}

/// Selects the EndpointSlices of metrics-api's Service.
pub(crate) fn endpoint_labels() -> String {
    format!("kubernetes.io/service-name={}", names::METRICS_API)
}

/// Addresses that take connections: unset counts as ready.
fn ready_endpoints(slices: &[EndpointSlice]) -> usize {
    slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        })
        .map(|endpoint| endpoint.addresses.len())
        .sum()
}

async fn named<T>(
    what: &'static str,
    read: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ObserveError> {
    read.await.map_err(|source| ObserveError { what, source })
}
