//! What our programs asked of kube-apiserver, from its audit log: the cluster keeps one of them only.

use anyhow::{Context as _, Result};
use contract::names::{KUBELET_SERVICE_ACCOUNT, MANAGED_BY, METRICS_API};
use jiff::Timestamp;
use serde::Deserialize;

use super::context::Context;
use crate::cluster::AUDIT_LOG;
use crate::test::install_yaml::NAMESPACE;

/// Whose call it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Operator,
    /// metrics-api, or the account that it has for kubelets.
    MetricsApi,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) at: Timestamp,
    pub(super) caller: Caller,
    pub(super) verb: String,
    pub(super) group: String,
    /// With the subresource: `pods`, `metricsstacks/status`.
    pub(super) resource: String,
    /// Empty for what is cluster-wide.
    pub(super) namespace: String,
    /// Empty for collections.
    pub(super) name: String,
    /// Whether RBAC allowed it.
    pub(super) allowed: bool,
}

impl Call {
    /// In words.
    pub(super) fn describe(&self) -> String {
        let Self {
            verb,
            group,
            resource,
            namespace,
            name,
            ..
        } = self;
        format!("{verb} {resource}.{group} {namespace}/{name}")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage_timestamp: Timestamp,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Option<Reference>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reference {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: String,
}

/// Every call about a resource, the oldest first.
pub(super) async fn calls(context: &Context) -> Result<Vec<Call>> {
    let log = context.control_plane_file(AUDIT_LOG).await?;
    // The last line may be half written.
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let calls = lines.map(|line| {
        let event: Event = serde_json::from_str(line).with_context(|| format!("the audit log has {line}"))?;
        Ok(call(event))
    });
    calls.filter_map(Result::transpose).collect()
}

fn call(event: Event) -> Option<Call> {
    let account = |name: &str| format!("system:serviceaccount:{NAMESPACE}:{name}");
    let user = event.user.username;
    let caller = if user == account(MANAGED_BY) {
        Caller::Operator
    } else if user == account(METRICS_API) || user == account(KUBELET_SERVICE_ACCOUNT) {
        Caller::MetricsApi
    } else {
        return None;
    };
    let Reference {
        api_group,
        resource,
        subresource,
        namespace,
        name,
    } = event.object_ref?;
    let resource = match subresource.as_str() {
        "" => resource,
        subresource => format!("{resource}/{subresource}"),
    };
    Some(Call {
        at: event.stage_timestamp,
        caller,
        verb: event.verb,
        group: api_group,
        resource,
        namespace,
        name,
        allowed: event.annotations.decision != "forbid",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_becomes_a_call() {
        let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete",
            "requestURI":"/apis/metricsstack.dev/v1alpha1/metricsstacks/default/status?fieldManager=metricsstack-operator","verb":"patch",
            "user":{"username":"system:serviceaccount:metricsstack-system:metricsstack-operator","groups":["system:authenticated"]},
            "objectRef":{"resource":"metricsstacks","name":"default","apiGroup":"metricsstack.dev","apiVersion":"v1alpha1","subresource":"status"},
            "responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-25T12:00:00.000000Z",
            "stageTimestamp":"2026-11-25T12:00:00.012345Z","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"r"}}"#;
        let call = call(serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(
            call.describe(),
            "patch metricsstacks/status.metricsstack.dev /default"
        );
        assert!(call.allowed && call.caller == Caller::Operator);
        let discovery = line.replace("\"objectRef\"", "\"other\"");
        assert!(super::call(serde_json::from_str(&discovery).unwrap()).is_none());
        let somebody = line.replace("metricsstack-system:metricsstack-operator", "default:default");
        assert!(super::call(serde_json::from_str(&somebody).unwrap()).is_none());
    }
}
