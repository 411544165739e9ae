//! The `PodDisruptionBudget`: a drain takes one replica at a time.

use contract::names;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{namespaced, selector};

/// For more than one replica: with one, a drain would take it anyway, or never end.
pub(super) fn metrics_api(namespace: &str) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: namespaced(namespace, names::METRICS_API),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(selector()),
                ..LabelSelector::default()
            }),
            // A replica that is not ready serves nobody: it must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
