//! What exists, what the control plane publishes, what answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
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

use crate::adopt::FormerServer;
use crate::certificates::{BUNDLE, Usage};
use crate::cluster::{self, KUBE_SYSTEM};
use crate::contest::Contest;
use crate::rotation::{self, Served};
use crate::{registration, reports};

/// Everything seen. Plain data: nothing here asks the cluster again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
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
    /// The certificate that each running replica serves.
    pub served: Vec<Served>,
    /// Who knows and uses the certificates.
    pub usage: Usage,
    /// Each kube-apiserver by its address, and the result of a list through its aggregator; `None` for one that cannot
    /// be reached singly.
    pub api_servers: Vec<(SocketAddr, Option<Read>)>,
    /// Result of a list through the aggregators.
    pub read: Read,
    /// Objects with a name of ours but without our label. They were not touched.
    pub conflicts: Vec<Conflict>,
    /// Objects of ours that somebody else keeps changing.
    pub contests: Vec<Contest>,
    /// Servers that adopted `APIServices` pointed at before, and that still run.
    pub former_servers: Vec<FormerServer>,
    /// What could not be applied and why, in one line.
    pub apply_error: Option<String>,
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
            (&self.ca_secret, BUNDLE),
            (&self.ca_secret, names::TLS_CERTIFICATE),
            (&self.serving_secret, BUNDLE),
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
            Self::FrontProxy => "ConfigMap kube-system/extension-apiserver-authentication",
        }
    }
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

/// Something could not be read that nothing can be done without. What was not seen must not count as absent: a
/// certificate authority would be replaced, a registration of somebody else overwritten.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what}: {}", cluster::describe(.source))]
pub struct ObserveError {
    what: &'static str,
    source: kube::Error,
}

impl ObserveError {
    /// What could not be read.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Whether kube-apiserver said no, which the next try will hardly change.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        cluster::is_refusal(&self.source)
    }
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

    /// Everything but the [reports](Self::reports), [`Observed::read`] and what an apply finds out.
    pub async fn observe(&mut self) -> Result<Observed, ObserveError> {
        let mut unseen = BTreeMap::new();
        let nodes = self.nodes().await;
        let secrets: Api<Secret> = self.own();
        let deployments: Api<Deployment> = self.own();
        let pods: Api<Pod> = self.own();
        let endpoints: Api<EndpointSlice> = self.own();
        let kube_system: Api<ConfigMap> = Api::namespaced(self.client.clone(), KUBE_SYSTEM);
        let of_pods = ListParams::default().labels(&pod_labels());
        let of_service = ListParams::default().labels(&endpoint_labels());
        let essential = async {
            tokio::try_join!(
                named(
                    "the certificate authority's Secret",
                    secrets.get_opt(names::CA_SECRET)
                ),
                named(
                    "the serving certificate's Secret",
                    secrets.get_opt(names::SERVING_SECRET)
                ),
                named("the APIServices", cluster::api_services(&self.client)),
            )
        };
        let (essential, deployment, pods, endpoints, authentication) = tokio::join!(
            essential,
            deployments.get_opt(names::METRICS_API),
            pods.list(&of_pods),
            endpoints.list(&of_service),
            kube_system.get_opt(names::AUTHENTICATION_CONFIG_MAP),
        );
        let (ca_secret, serving_secret, api_services) = essential?;
        if let Err(error) = nodes {
            unseen.insert(Part::Nodes, cluster::describe(&error));
        }
        let deployment = seen(Part::Deployment, deployment, &mut unseen).flatten();
        let pods = seen(Part::Pods, pods, &mut unseen);
        let ready_endpoints = seen(Part::Endpoints, endpoints, &mut unseen).map_or_else(
            || ready_replicas(deployment.as_ref()),
            |slices| ready_endpoints(&slices.items),
        );
        Ok(Observed {
            namespace: self.namespace.clone(),
            nodes: self
                .nodes
                .as_ref()
                .map(|(_, nodes)| nodes.clone())
                .unwrap_or_default(),
            ca_secret,
            serving_secret,
            pods: pods.map(|pods| pods.items).unwrap_or_default(),
            ready_endpoints,
            deployment,
            api_services,
            authentication: seen(Part::FrontProxy, authentication, &mut unseen).flatten(),
            unseen,
            ..Observed::default()
        })
    }

    /// Somebody else's Secret that the serving certificate is taken from.
    pub async fn given(&self, observed: &mut Observed, name: &str) {
        let secrets: Api<Secret> = self.own();
        let secret = secrets.get_opt(name).await;
        observed.given_secret = Some(secret.map_err(|error| cluster::describe(&error)));
    }

    /// metrics-api's Deployment, after something was written.
    pub async fn deployment(&self, observed: &mut Observed) {
        let deployments: Api<Deployment> = self.own();
        if let Ok(deployment) = deployments.get_opt(names::METRICS_API).await {
            observed.deployment = deployment;
        }
    }

    /// What each replica says about the nodes, and which certificate it serves. Later than the rest: it takes the authority that shall be, not the one
    /// that was found.
    pub async fn reports(&mut self, observed: &mut Observed) {
        let bundle = observed.bundle();
        let served = rotation::served(&observed.pods, &observed.namespace, bundle.unwrap_or_default());
        let replicas = self.reports.read(&observed.pods, bundle);
        (observed.replicas, observed.served) = tokio::join!(replicas, served);
    }

    fn own<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Looks at the nodes again if it is time.
    async fn nodes(&mut self) -> Result<(), kube::Error> {
        if self
            .nodes
            .as_ref()
            .is_some_and(|(read, _)| read.elapsed() < NODES_FRESH)
        {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let mut nodes = Vec::new();
        let mut page = ListParams::default().limit(NODE_PAGE);
        loop {
            let list = api.list(&page).await?;
            nodes.extend(list.items.iter().map(NodeFacts::from));
            match list.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                _ => break,
            }
        }
        self.nodes = Some((Instant::now(), nodes));
        Ok(())
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
pub(crate) fn ready_endpoints(slices: &[EndpointSlice]) -> usize {
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

fn ready_replicas(deployment: Option<&Deployment>) -> usize {
    deployment
        .and_then(|deployment| deployment.status.as_ref()?.ready_replicas)
        .and_then(|ready| usize::try_from(ready).ok())
        .unwrap_or_default()
}

fn seen<T>(part: Part, read: Result<T, kube::Error>, unseen: &mut BTreeMap<Part, String>) -> Option<T> {
    read.map_err(|error| unseen.insert(part, cluster::describe(&error)))
        .ok()
}

async fn named<T>(
    what: &'static str,
    read: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ObserveError> {
    read.await.map_err(|source| ObserveError { what, source })
}
