//! What exists, what the control plane publishes, what answers.

mod seen;
mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::api::{ConfigMapKeySpec, MetricsStackSpec};
use crate::cluster::{self, KUBE_SYSTEM};
use crate::{monitoring, reports, rotation};

pub(crate) use seen::serving_port;
pub use seen::{Conflict, FrontProxyCertificate, NodeFacts, Observed, Part, Read, Replica};
pub(crate) use trouble::awaits_certificate;

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
    front_proxy_certificate: Option<FrontProxyCertificate>,
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
            front_proxy_certificate: None,
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
        let (essential, deployment, pods, endpoints, authentication, kinds) = tokio::join!(
            essential,
            deployments.get_opt(names::METRICS_API),
            pods.list(&of_pods),
            endpoints.list(&of_service),
            kube_system.get_opt(names::AUTHENTICATION_CONFIG_MAP),
            monitoring::kinds(&self.client),
        );
        let kinds = kinds.inspect_err(|error| {
            let error = cluster::describe(error);
            tracing::warn!(
                error,
                "failed to see whether the cluster has the Prometheus operator's kinds"
            );
        });
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
            at: Timestamp::now(),
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
            monitoring_kinds: kinds.ok(),
            unseen,
            ..Observed::default()
        })
    }

    /// What the spec names that is somebody else's.
    pub async fn named(&self, observed: &mut Observed, spec: &MetricsStackSpec) {
        let certificates = spec.certificates.as_ref();
        if let Some(name) = certificates.and_then(|certificates| certificates.secret_name.as_deref()) {
            let secrets: Api<Secret> = self.own();
            let secret = secrets.get_opt(name).await;
            observed.given_secret = Some(secret.map_err(|error| cluster::describe(&error)));
        }
        let tls = spec.kubelet.as_ref().and_then(|kubelet| kubelet.tls.as_ref());
        let bundle = tls.and_then(|tls| tls.ca_bundle.as_ref());
        if let Some(ConfigMapKeySpec { name, .. }) = bundle.and_then(|bundle| bundle.config_map.as_ref()) {
            let config_maps: Api<ConfigMap> = self.own();
            // By a list: the operator may list those of its namespace, and get its own only.
            let named = ListParams::default().fields(&format!("metadata.name={name}"));
            let read = config_maps.list(&named).await;
            if let Some(list) = seen(Part::KubeletAuthorities, read, &mut observed.unseen) {
                let found = list.items.into_iter().next();
                observed.kubelet_authorities.insert(name.clone(), found);
            }
        }
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
        // While no replica was shown one lately, it is most likely what it was.
        let shown = FrontProxyCertificate::first_to_end(&observed.replicas);
        self.front_proxy_certificate = shown.or_else(|| self.front_proxy_certificate.take());
        observed
            .front_proxy_certificate
            .clone_from(&self.front_proxy_certificate);
    }

    /// Looks for what failures have to do with, after everything else is known.
    pub async fn trouble(&self, observed: &mut Observed) {
        trouble::look(&self.client, observed).await;
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
