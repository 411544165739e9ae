//! What the Prometheus operator and Grafana take up: where to scrape, what to alert on, a dashboard.

mod dashboard;
mod rules;

use contract::names;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, TypeMeta};
use serde_json::{Value, json};

use super::service::PORT_NAME;
use super::{Object, namespaced, selector};
use crate::certificates::BUNDLE;
use crate::monitoring::MonitoringKind;
use crate::plan::{MonitoringPlan, Plan};

/// The label that Grafana's sidecar looks for.
const DASHBOARD_LABEL: &str = "grafana_dashboard";
/// Name of the port of the operator's Pods with its metrics: the chart's.
const OPERATOR_PORT: &str = "admin";

/// What shall be, what shall not, and what stays as it is. Of kinds that the cluster does not have there is none of it.
#[derive(Default)]
pub(super) struct Monitoring {
    pub(super) wanted: Vec<Object>,
    pub(super) absent: Vec<Object>,
    pub(super) kept: Vec<Object>,
}

pub(super) fn objects(plan: &Plan) -> Monitoring {
    let MonitoringPlan {
        kinds,
        service_monitor: _,
        rules,
        dashboard,
        labels: _,
    } = &plan.monitoring;
    let mut monitoring = Monitoring::default();
    let Some(kinds) = kinds else {
        let all = MonitoringKind::ALL.into_iter().map(|kind| object(kind, plan));
        monitoring.kept = all.chain([Object::new(&dashboard_map(plan))]).collect();
        return monitoring;
    };
    for &kind in kinds {
        let is_wanted = match kind {
            MonitoringKind::ServiceMonitor | MonitoringKind::PodMonitor => plan.monitoring.scrapes(kind),
            MonitoringKind::PrometheusRule => *rules,
        };
        monitoring.put(is_wanted, object(kind, plan));
    }
    let is_wanted = *dashboard && !kinds.is_empty();
    monitoring.put(is_wanted, Object::new(&dashboard_map(plan)));
    monitoring
}

impl Monitoring {
    fn put(&mut self, is_wanted: bool, object: Object) {
        if is_wanted {
            &mut self.wanted
        } else {
            &mut self.absent
        }
        .push(object);
    }
}

fn object(kind: MonitoringKind, plan: &Plan) -> Object {
    let (name, spec) = match kind {
        MonitoringKind::ServiceMonitor => (names::METRICS_API, of_metrics_api(&plan.namespace)),
        MonitoringKind::PodMonitor => (names::MANAGED_BY, of_operator()),
        MonitoringKind::PrometheusRule => (names::METRICS_API, rules::spec(plan)),
    };
    let resource = kind.resource();
    Object {
        object: DynamicObject {
            types: Some(TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            }),
            metadata: metadata(plan, name),
            data: json!({"spec": spec}),
        },
        resource,
        adopts: false,
    }
}

/// With the labels that the cluster's Prometheus or Grafana selects by.
fn metadata(plan: &Plan, name: &str) -> ObjectMeta {
    let mut metadata = namespaced(&plan.namespace, name);
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in &plan.monitoring.labels {
        // Ours are how the operator knows it again.
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    metadata
}

/// Prometheus shows the token of its own account, which needs `get` on `/metrics`, as kube-prometheus gives it.
fn of_metrics_api(namespace: &str) -> Value {
    json!({
        "selector": {"matchLabels": selector()},
        "endpoints": [{
            "port": PORT_NAME,
            "scheme": "https",
            "path": "/metrics",
            "bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "tlsConfig": {
                "serverName": format!("{}.{namespace}.svc", names::METRICS_API),
                "ca": {"secret": {"name": names::SERVING_SECRET, "key": BUNDLE}},
            },
        }],
    })
}

fn of_operator() -> Value {
    json!({
        "selector": {"matchLabels": {names::NAME_LABEL: names::MANAGED_BY}},
        "podMetricsEndpoints": [{"port": OPERATOR_PORT, "path": "/metrics"}],
    })
}

fn dashboard_map(plan: &Plan) -> ConfigMap {
    let mut metadata = metadata(plan, names::DASHBOARD_CONFIG_MAP);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(DASHBOARD_LABEL.to_owned(), "1".to_owned());
    ConfigMap {
        metadata,
        data: Some([("metrics-api.json".to_owned(), dashboard::json())].into()),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests;
