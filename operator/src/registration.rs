//! Whose an `APIService` of the group is: pure.

use contract::names;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt as _;
use kube::core::DynamicObject;

use crate::plan;
use crate::{contest, desired, ownership};

/// Whether it is ours: by its label, or because it points at our Service. One that has lost the label is nobody else's:
/// what answers for it is metrics-api.
#[must_use]
pub fn is_ours(service: &APIService, namespace: &str) -> bool {
    desired::ours(&service.metadata) || points_at_us(service, namespace)
}

/// Whether it points at the Service of metrics-api in `namespace`.
#[must_use]
pub fn points_at_us(service: &APIService, namespace: &str) -> bool {
    plan::target(service) == format!("{namespace}/{}", names::METRICS_API)
}

/// Who put an `APIService` there, as far as labels, annotations and `managedFields` tell.
#[must_use]
pub fn owner(service: &APIService) -> Option<String> {
    let (labels, annotations) = (service.labels(), service.annotations());
    if let Some(release) = annotations.get("meta.helm.sh/release-name") {
        let namespace = annotations.get("meta.helm.sh/release-namespace");
        let namespace = namespace.map_or("default", String::as_str);
        return Some(format!("the Helm release {namespace}/{release}"));
    }
    // Of k3s and RKE2, and of clusters with Kubernetes' addon manager.
    if let Some(addon) = labels.get("objectset.rio.cattle.io/owner-name") {
        return Some(format!("the addon {addon} of the cluster's distribution"));
    }
    if labels.contains_key("addonmanager.kubernetes.io/mode") {
        return Some("the cluster's addon manager".to_owned());
    }
    if let Some(manager) = labels.get(names::MANAGED_BY_LABEL) {
        return Some(format!("{manager:?} ({})", names::MANAGED_BY_LABEL));
    }
    let entries = service.metadata.managed_fields.as_deref();
    entries?
        .iter()
        .any(ownership::is_other)
        .then(|| contest::opponent(entries))
}

/// Whether `live` is an `APIService` that points at the same Service as `desired`.
pub(crate) fn same_target(desired: &DynamicObject, live: &DynamicObject) -> bool {
    let target = |object: &DynamicObject| {
        let service = object.data.pointer("/spec/service")?;
        Some((service.get("namespace")?.clone(), service.get("name")?.clone()))
    };
    let is_api_service = |object: &DynamicObject| {
        object
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "APIService")
    };
    is_api_service(desired) && target(desired).is_some() && target(desired) == target(live)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn whose_it_is_is_told_by_the_most_certain_sign() {
        let owner = |metadata: serde_json::Value| {
            super::owner(&serde_json::from_value(json!({"metadata": metadata})).unwrap())
        };
        let managed = json!([
            {"manager": "kube-apiserver", "operation": "Update", "subresource": "status", "fieldsV1": {}},
            {"manager": "kubectl-client-side-apply", "operation": "Update", "fieldsV1": {}},
        ]);
        let label = |key: &str, value: &str| json!({"labels": {key: value}, "managedFields": managed});
        assert_eq!(owner(json!({})), None);
        assert_eq!(
            owner(json!({"managedFields": managed})).unwrap(),
            "the field manager \"kubectl-client-side-apply\" (Update)"
        );
        assert_eq!(
            owner(label("app.kubernetes.io/managed-by", "kops")).unwrap(),
            "\"kops\" (app.kubernetes.io/managed-by)"
        );
        assert_eq!(
            owner(label("addonmanager.kubernetes.io/mode", "Reconcile")).unwrap(),
            "the cluster's addon manager"
        );
        assert_eq!(
            owner(label("objectset.rio.cattle.io/owner-name", "metrics-apiservice")).unwrap(),
            "the addon metrics-apiservice of the cluster's distribution"
        );
        let release =
            json!({"meta.helm.sh/release-name": "adapter", "meta.helm.sh/release-namespace": "monitoring"});
        assert_eq!(
            owner(json!({"annotations": release, "labels": {"app.kubernetes.io/managed-by": "Helm"}}))
                .unwrap(),
            "the Helm release monitoring/adapter"
        );
    }

    use super::*;

    #[test]
    fn it_is_ours_by_its_label_or_by_its_service() {
        for (labels, service, ours) in [
            (json!({}), json!({"namespace": "ns", "name": "metrics-api"}), true),
            (
                json!({}),
                json!({"namespace": "other", "name": "metrics-api"}),
                false,
            ),
            (
                json!({}),
                json!({"namespace": "ns", "name": "metrics-server"}),
                false,
            ),
            (
                json!({"app.kubernetes.io/managed-by": "metricsstack-operator"}),
                json!({"namespace": "ns", "name": "other"}),
                true,
            ),
        ] {
            let api_service = serde_json::from_value(json!({
                "metadata": {"name": "v1.metrics.k8s.io", "labels": labels},
                "spec": {"service": service, "groupPriorityMinimum": 100, "versionPriority": 100},
            }))
            .unwrap();
            assert_eq!(is_ours(&api_service, "ns"), ours, "{api_service:?}");
        }
    }
}
