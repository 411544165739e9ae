//! The kinds of the Prometheus operator, which a cluster has or has not: they may come later, and go.

use std::collections::BTreeSet;

use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};

use crate::cluster;

/// Group of these kinds.
pub(crate) const GROUP: &str = "monitoring.coreos.com";
const VERSION: &str = "v1";

/// A kind of the Prometheus operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MonitoringKind {
    /// Scrapes what is behind a Service.
    ServiceMonitor,
    /// Scrapes Pods.
    PodMonitor,
    /// Alerts.
    PrometheusRule,
}

impl MonitoringKind {
    /// Each of them.
    pub(crate) const ALL: [Self; 3] = [Self::ServiceMonitor, Self::PodMonitor, Self::PrometheusRule];

    pub(crate) fn resource(self) -> ApiResource {
        let (kind, plural) = match self {
            Self::ServiceMonitor => ("ServiceMonitor", "servicemonitors"),
            Self::PodMonitor => ("PodMonitor", "podmonitors"),
            Self::PrometheusRule => ("PrometheusRule", "prometheusrules"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural)
    }
}

/// Which of them the cluster has.
pub(crate) async fn kinds(client: &Client) -> Result<BTreeSet<MonitoringKind>, kube::Error> {
    let served = match client
        .list_api_group_resources(&format!("{GROUP}/{VERSION}"))
        .await
    {
        Ok(list) => list.resources,
        Err(error) if cluster::is_not_found(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    let has = |kind: &MonitoringKind| {
        let plural = kind.resource().plural;
        // One whose definition is being deleted is listed, but takes no more objects.
        let takes = |verb: &str| {
            served
                .iter()
                .any(|resource| resource.name == plural && resource.verbs.iter().any(|v| v == verb))
        };
        takes("create") && takes("patch")
    };
    Ok(MonitoringKind::ALL.into_iter().filter(has).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{self, Fake};

    #[tokio::test]
    async fn a_cluster_has_all_kinds_or_some_or_none() {
        let fake = Fake::default();
        assert_eq!(kinds(&fake.client()).await.unwrap(), BTreeSet::new());
        let resource = |name: &str, kind: &str| {
            let verbs = if name == "prometheusrules" {
                vec!["delete", "get"]
            } else {
                vec!["create", "get", "patch"]
            };
            json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs})
        };
        let list = json!({"kind": "APIResourceList", "groupVersion": "monitoring.coreos.com/v1", "resources": [
            resource("podmonitors", "PodMonitor"),
            resource("podmonitors/status", "PodMonitor"),
            resource("prometheuses", "Prometheus"),
            // Its definition is being deleted.
            resource("prometheusrules", "PrometheusRule"),
        ]});
        fake.put("/apis/monitoring.coreos.com/v1", list);
        assert_eq!(
            kinds(&fake.client()).await.unwrap(),
            [MonitoringKind::PodMonitor].into()
        );
        let broken = fake::status(503, "ServiceUnavailable", "starting");
        fake.always("GET /apis/monitoring.coreos.com/v1", 503, broken);
        assert!(kinds(&fake.client()).await.is_err());
    }
}
