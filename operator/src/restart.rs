//! A new ServiceAccount needs new Pods: tokens are bound to the account's UID, and kubelet does not fetch another while
//! the old one has time left. Without this, an account that was deleted and made again would leave metrics-api
//! without any rights for most of an hour.

use contract::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::desired;

/// Annotation of the Pod template: the account that the Pods were started again for.
const ANNOTATION: &str = "metricsstack.dev/started-for-account";
/// Field manager of that annotation. Another one than of the Deployment, whose next apply would remove it.
const MANAGER: &str = "metricsstack-operator-restart";

/// Starts Pods again that are older than their ServiceAccount, one by one as the Deployment's strategy has it. Says
/// whether it did.
pub(crate) async fn for_new_account(
    client: &Client,
    namespace: &str,
    deployment: Option<&Deployment>,
    pods: &[Pod],
) -> Result<bool, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let Some(account) = accounts.get_metadata_opt(names::METRICS_API).await? else {
        return Ok(false);
    };
    let Some(uid) = due(&account.metadata, deployment, pods) else {
        return Ok(false);
    };
    tracing::info!("metrics-api is started again: its ServiceAccount is another than it was started with");
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {ANNOTATION: uid}}}}});
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    deployments
        .patch_metadata(names::METRICS_API, &parameters, &Patch::Merge(patch))
        .await?;
    Ok(true)
}

/// The UID of the account that the Pods have to be started for, if they are not already.
fn due(account: &ObjectMeta, deployment: Option<&Deployment>, pods: &[Pod]) -> Option<String> {
    let deployment = deployment.filter(|deployment| desired::ours(&deployment.metadata))?;
    let (uid, made) = (account.uid.clone()?, account.creation_timestamp.as_ref()?);
    let started_for = || {
        deployment
            .spec
            .template
            .metadata
            .as_ref()?
            .annotations
            .as_ref()?
            .get(ANNOTATION)
    };
    if started_for() == Some(&uid) {
        return None;
    }
    pods.iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .any(|pod| {
            pod.metadata
                .creation_timestamp
                .as_ref()
                .is_some_and(|started| started < made)
        })
        .then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_older_than_their_account_are_started_again_and_once() {
        let account: ObjectMeta =
            serde_json::from_value(json!({"uid": "b", "creationTimestamp": "2026-11-24T05:00:10Z"})).unwrap();
        let pods = |times: &[&str]| -> Vec<Pod> {
            times
                .iter()
                .map(|time| serde_json::from_value(json!({"metadata": {"creationTimestamp": time}})).unwrap())
                .collect()
        };
        let deployment = |annotations: serde_json::Value| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"labels": {"app.kubernetes.io/managed-by": "metricsstack-operator"}},
                "spec": {"selector": {}, "template": {"metadata": {"annotations": annotations}}}
            }))
            .unwrap()
        };
        let old = pods(&["2026-11-24T05:00:20Z", "2026-11-24T05:00:09Z"]);
        let new = pods(&["2026-11-24T05:00:10Z", "2026-11-24T05:00:20Z"]);
        let fresh = deployment(json!({}));
        assert_eq!(due(&account, Some(&fresh), &old), Some("b".to_owned()));
        assert_eq!(due(&account, Some(&fresh), &new), None);
        assert_eq!(due(&account, Some(&fresh), &[]), None);
        assert_eq!(due(&account, None, &old), None);
        let other = deployment(json!({ANNOTATION: "a"}));
        assert_eq!(due(&account, Some(&other), &old), Some("b".to_owned()));
        let done = deployment(json!({ANNOTATION: "b"}));
        assert_eq!(due(&account, Some(&done), &old), None);
    }
}
