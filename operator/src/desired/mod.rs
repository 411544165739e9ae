//! The objects that a [`Plan`] comes down to, one file a kind.

mod api_service;
mod config_map;
mod deployment;
mod monitoring;
mod network_policy;
mod pod_disruption_budget;
mod rbac;
mod secret;
mod service;
mod service_account;

use std::collections::BTreeMap;

use self::monitoring::Monitoring;
use contract::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicObject, TypeMeta};
use serde::Serialize;
pub(crate) use service::PORT_NAME;

use crate::cluster::api_service_name;
use crate::plan::{KubeletAuthorities, NetworkPolicyPlan, Plan, Registration};

/// What shall be, in the order in which it is applied, and what shall not.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// Everything but the registration. A Deployment comes after what its Pods need.
    pub base: Vec<Object>,
    /// The registration, applied last. Empty while it is not due.
    pub api_services: Vec<Object>,
    /// The registration, to be deleted before anything else is done.
    pub unregistered: Vec<Object>,
    /// For Prometheus and Grafana, applied at the very end: whatever refuses them, such as a webhook of the Prometheus
    /// operator, refuses nothing else.
    pub monitoring: Vec<Object>,
    /// The same, to be deleted.
    pub unmonitored: Vec<Object>,
    /// To be deleted where they exist and are ours, when nothing rests on them any more.
    pub absent: Vec<Object>,
    /// Left as they are where they exist, whatever they are like.
    pub untouched: Vec<Object>,
}

/// One object as it is sent to kube-apiserver.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind and where that is served.
    pub resource: ApiResource,
    /// The object itself, without fields that are somebody else's.
    pub object: DynamicObject,
    /// Whether it takes the place of one of somebody else.
    pub adopts: bool,
}

impl Object {
    fn new<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let mut data = serde_json::to_value(object).unwrap_or_default();
        if let Some(fields) = data.as_object_mut() {
            for known in ["apiVersion", "kind", "metadata"] {
                fields.remove(known);
            }
        }
        let object = DynamicObject {
            types: Some(TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            }),
            metadata: object.meta().clone(),
            data,
        };
        Self {
            resource,
            object,
            adopts: false,
        }
    }

    /// Whether this is the Secret with the certificate authority.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.is_secret() && self.name() == names::CA_SECRET
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace, if its kind has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.object.metadata.namespace.as_deref()
    }

    /// Whether it holds certificates and keys.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.resource.kind == "Secret"
    }

    /// Whether it binds a Role or `ClusterRole`, which has to be there before.
    #[must_use]
    pub fn is_binding(&self) -> bool {
        self.resource.kind.ends_with("RoleBinding")
    }

    /// Kind, namespace and name, for people: `Service metricsstack-system/metrics-api`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.namespace() {
            Some(namespace) => format!("{} {namespace}/{}", self.resource.kind, self.name()),
            None => format!("{} {}", self.resource.kind, self.name()),
        }
    }
}

/// Whether an object with this metadata is ours. Others are never touched.
#[must_use]
pub fn ours(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(names::MANAGED_BY_LABEL))
        .is_some_and(|value| value == names::MANAGED_BY)
}

/// The objects of a plan.
#[must_use]
pub fn objects(plan: &Plan) -> Objects {
    let namespace = plan.namespace.as_str();
    let mut base = vec![
        Object::new(&secret::serving(namespace, &plan.certificates)),
        Object::new(&service_account::metrics_api(namespace)),
        Object::new(&service_account::kubelet(namespace)),
        Object::new(&rbac::reader()),
        Object::new(&rbac::server()),
        Object::new(&rbac::kubelet()),
        Object::new(&rbac::server_binding(namespace)),
        Object::new(&rbac::kubelet_binding(namespace)),
        Object::new(&rbac::auth_delegator_binding(namespace)),
        Object::new(&rbac::auth_reader_binding(namespace)),
        Object::new(&service::metrics_api(namespace)),
    ];
    let (mut absent, mut kept) = (Vec::new(), Vec::new());
    match &plan.certificates.ca {
        // Before what it signs.
        Some(ca) => base.insert(
            0,
            Object::new(&secret::authority(namespace, ca, &plan.certificates)),
        ),
        // What it has signed may still be shown.
        None if plan.certificates.rotates() => kept.push(Object::new(&secret::no_authority(namespace))),
        None => absent.push(Object::new(&secret::no_authority(namespace))),
    }
    let mut workload = vec![
        Object::new(&rbac::own_role(namespace, plan.kubelet.tls_mode)),
        Object::new(&rbac::own_role_binding(namespace)),
    ];
    let kubelet_ca = |bundle| Object::new(&config_map::kubelet_ca(namespace, bundle));
    match &plan.kubelet.authorities {
        KubeletAuthorities::Given(bundle) => workload.push(kubelet_ca(Some(bundle.as_str()))),
        KubeletAuthorities::Cluster if !plan.keeps_workload => absent.push(kubelet_ca(None)),
        KubeletAuthorities::Cluster | KubeletAuthorities::Kept { .. } => kept.push(kubelet_ca(None)),
    }
    let budget = Object::new(&pod_disruption_budget::metrics_api(namespace));
    if plan.metrics_api.replicas > 1 || plan.keeps_workload {
        workload.push(budget);
    } else {
        absent.push(budget);
    }
    let policy = |egress| Object::new(&network_policy::metrics_api(namespace, egress));
    match &plan.network_policy {
        _ if plan.keeps_workload => kept.push(policy(None)),
        NetworkPolicyPlan::Kept => kept.push(policy(None)),
        NetworkPolicyPlan::Absent => absent.push(policy(None)),
        NetworkPolicyPlan::Wanted(egress) => workload.push(policy(Some(egress))),
    }
    workload.push(Object::new(&deployment::metrics_api(plan)));
    let Monitoring {
        wanted: mut monitoring,
        absent: unmonitored,
        kept: unknown,
    } = monitoring::objects(plan);
    kept.extend(unknown);
    if plan.keeps_workload {
        kept.append(&mut monitoring);
        kept.extend(workload);
    } else {
        base.extend(workload);
    }

    let registration: Vec<_> = names::METRICS_VERSIONS
        .into_iter()
        .map(|version| {
            let name = api_service_name(version);
            let former = plan.former.get(&name).map(String::as_str);
            let service = api_service::metrics(namespace, version, &plan.certificates, former);
            Object {
                adopts: plan.adopts.contains(&name),
                ..Object::new(&service)
            }
        })
        .collect();
    let (api_services, unregistered) = match plan.registration {
        Registration::Register => (registration, Vec::new()),
        Registration::AwaitEndpoint => (Vec::new(), Vec::new()),
        Registration::Withheld(_) => (Vec::new(), registration),
    };
    Objects {
        base,
        api_services,
        unregistered,
        monitoring,
        unmonitored,
        absent,
        untouched: kept,
    }
}

/// Metadata of an object in a namespace.
fn namespaced(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.to_owned()),
        ..cluster_wide(name)
    }
}

/// Metadata of an object without a namespace.
fn cluster_wide(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels()),
        ..ObjectMeta::default()
    }
}

/// Labels of everything we make.
pub(crate) fn labels() -> BTreeMap<String, String> {
    let mut labels = selector();
    labels.insert(names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY.to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "metricsstack".to_owned());
    labels
}

/// Labels that metrics-api's Pods are selected by.
pub(crate) fn selector() -> BTreeMap<String, String> {
    [
        (names::NAME_LABEL, names::METRICS_API),
        (names::STACK_LABEL, names::STACK_NAME),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

#[cfg(test)]
pub(crate) mod chart_tests;
#[cfg(test)]
mod tests;
