//! Whose an `APIService` of the group is: pure.

use contract::names;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::core::DynamicObject;

use crate::desired;
use crate::plan;

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
