//! Where objects of ours are, kind by kind.

use contract::{names, trust};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::ListParams;
use kube::core::ApiResource;
use kube::{Client, Resource};

use crate::cluster::{self, KUBE_SYSTEM};
use crate::monitoring::MonitoringKind;

/// Objects of one kind in one place.
#[derive(Clone, Debug)]
pub(crate) struct Kind<'a> {
    pub(crate) resource: ApiResource,
    /// Their namespace, if they have one.
    pub(crate) namespace: Option<&'a str>,
    /// What finds them, together.
    selections: Vec<ListParams>,
    /// Whether every cluster has this kind.
    pub(crate) everywhere: bool,
}

impl<'a> Kind<'a> {
    fn of<K: Resource<DynamicType = ()>>(namespace: Option<&'a str>) -> Self {
        let ours = ListParams::default().labels(&cluster::our_label());
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace,
            selections: vec![ours],
            everywhere: true,
        }
    }

    fn of_some_clusters(resource: ApiResource, namespace: &'a str) -> Self {
        Self {
            resource,
            everywhere: false,
            ..Self::of::<ConfigMap>(Some(namespace))
        }
    }

    /// Deletes them all but those whose name `keeps` wants. Returns the names. The operator's rights end at the names
    /// that it gives: a copy that somebody made of an object, label and all, is theirs, and no reason to be stuck.
    pub(crate) async fn delete(
        &self,
        client: &Client,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, kube::Error> {
        let api = cluster::objects(client, &self.resource, self.namespace);
        let mut deleted = Vec::new();
        for selection in &self.selections {
            let found = match api.list_metadata(selection).await {
                Ok(found) => found.items,
                Err(error) if !self.everywhere && cluster::is_not_found(&error) => continue,
                Err(error) => return Err(error),
            };
            for object in found {
                let name = object.metadata.name.unwrap_or_default();
                if keeps(&name) {
                    continue;
                }
                let result = cluster::delete(&api, &name, object.metadata.uid).await;
                if result.as_ref().is_err_and(cluster::is_forbidden) && !is_given(&name) {
                    tracing::warn!(
                        kind = self.resource.kind,
                        namespace = self.namespace,
                        name,
                        "left alone: it has the operator's label, but not a name that the operator gives"
                    );
                } else if result? {
                    tracing::info!(
                        kind = self.resource.kind,
                        namespace = self.namespace,
                        name,
                        "deleted"
                    );
                    deleted.push(name);
                }
            }
        }
        Ok(deleted)
    }
}

/// Whether the operator, or metrics-api for it, gives this name.
fn is_given(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        names::METRICS_API,
        names::MANAGED_BY,
        names::DASHBOARD_CONFIG_MAP,
        names::KUBELET_SERVICE_ACCOUNT,
        names::CA_SECRET,
        names::SERVING_SECRET,
        names::KUBELET_CA_CONFIG_MAP,
        names::READER_CLUSTER_ROLE,
        names::SERVER_CLUSTER_ROLE,
        names::KUBELET_CLUSTER_ROLE,
        names::AUTH_DELEGATOR_BINDING,
    ];
    NAMES.contains(&name)
        || name == names::AUTH_READER_BINDING
        || cluster::api_service_names().iter().any(|given| given == name)
        || trust::config_map_names().any(|given| given == name)
}

/// The registration: first to go.
pub(crate) fn registration() -> Kind<'static> {
    Kind::of::<APIService>(None)
}

/// Every other kind of object that the operator makes: what uses others before what it uses.
pub(crate) fn made(namespace: &str) -> Vec<Kind<'_>> {
    let own = Some(namespace);
    let mut secrets = Kind::of::<Secret>(own);
    // By name: the operator has no right to see other Secrets of its namespace.
    secrets.selections = cluster::SECRETS
        .map(|name| {
            ListParams::default()
                .labels(&cluster::our_label())
                .fields(&format!("metadata.name={name}"))
        })
        .into();
    let monitoring = MonitoringKind::ALL.map(|kind| Kind::of_some_clusters(kind.resource(), namespace));
    let mut kinds = vec![
        Kind::of::<RoleBinding>(own),
        Kind::of::<Deployment>(own),
        Kind::of::<PodDisruptionBudget>(own),
        Kind::of::<NetworkPolicy>(own),
        Kind::of::<Service>(own),
        Kind::of::<Role>(own),
        Kind::of::<ServiceAccount>(own),
        Kind::of::<ConfigMap>(own),
        secrets,
        Kind::of::<ClusterRoleBinding>(None),
        Kind::of::<ClusterRole>(None),
        Kind::of::<RoleBinding>(Some(KUBE_SYSTEM)),
    ];
    // Last: what refuses it keeps nothing else.
    kinds.extend(monitoring);
    kinds
}

/// The records of kubelets' identities: metrics-api's own, but they go with the stack.
pub(crate) fn trust_records(namespace: &str) -> Kind<'_> {
    let mut records = Kind::of::<ConfigMap>(Some(namespace));
    records.selections = vec![ListParams::default().labels(&format!("{}=true", names::TRUST_LABEL))];
    records
}
