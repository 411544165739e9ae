//! An `APIService` that was somebody else's: when it may be taken over, what is kept of it, and how it is given back.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::AdoptPolicy;
use crate::{cluster, desired, observe, plan};

/// Annotation of an adopted `APIService`: what it was before.
pub(crate) const FORMER: &str = "metricsstack.dev/former-api-service";
/// How long nobody must have answered for one before that is no restart any more.
const UNANSWERED: Duration = Duration::from_mins(1);
/// What kube-aggregator says where the Service is gone or has no endpoints.
pub(crate) const NOBODY: [&str; 3] = ["ServiceNotFound", "EndpointsNotFound", "MissingEndpoints"];

/// What an adopted `APIService` was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Former {
    spec: APIServiceSpec,
    /// The labels that ours took the place of.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The server that an adopted `APIService` pointed at, which still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerServer {
    /// Name of the `APIService`.
    pub api_service: String,
    /// The Service, as `namespace/name`.
    pub service: String,
    /// Namespace and name of the Deployment behind it, if there is one.
    pub deployment: Option<(String, String)>,
}

/// Whether `policy` takes this `APIService`, which is somebody else's. One without a Service is kube-apiserver's own.
#[must_use]
pub(crate) fn takes(policy: AdoptPolicy, service: &APIService, now: Timestamp) -> bool {
    let has_service = service.spec.as_ref().is_some_and(|spec| spec.service.is_some());
    has_service
        && match policy {
            AdoptPolicy::Never => false,
            AdoptPolicy::Unmanaged => nobody_answers(service, now),
            AdoptPolicy::Always => true,
        }
}

fn nobody_answers(service: &APIService, now: Timestamp) -> bool {
    let patience = SignedDuration::try_from(UNANSWERED).unwrap_or(SignedDuration::MAX);
    let conditions = service
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Available" && condition.status == "False")
        .any(|condition| {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let since = condition.last_transition_time.as_ref();
            NOBODY.contains(&reason) && since.is_some_and(|since| now.duration_since(since.0) >= patience)
        })
}

/// What is kept of an `APIService`: of one that is already adopted, what it was before that.
#[must_use]
pub(crate) fn kept(service: &APIService, is_ours: bool) -> Option<String> {
    if is_ours {
        return service.annotations().get(FORMER).cloned();
    }
    let ours = desired::labels();
    let former = Former {
        spec: service.spec.clone()?,
        labels: service
            .labels()
            .iter()
            .filter(|(key, _)| ours.contains_key(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    };
    serde_json::to_string(&former).ok()
}

/// What it was before, if that can be read and is of the same version: an annotation is anybody's to write.
fn former(service: &APIService) -> Option<Former> {
    let former: Former = serde_json::from_str(service.annotations().get(FORMER)?).ok()?;
    let now = service.spec.as_ref()?;
    let same = former.spec.group == now.group && former.spec.version == now.version;
    (same && former.spec.service.is_some()).then_some(former)
}

/// The adopted ones whose former server still runs.
pub(crate) async fn former_servers(
    client: &Client,
    services: &[APIService],
) -> Result<Vec<FormerServer>, kube::Error> {
    let mut servers = Vec::new();
    for service in services {
        if let Some(former) = former(service)
            && let Some(pod) = running(client, &former).await?
        {
            servers.push(FormerServer {
                api_service: service.name_any(),
                service: target(&former),
                deployment: deployment(&pod),
            });
        }
    }
    Ok(servers)
}

fn target(former: &Former) -> String {
    plan::target(&APIService {
        spec: Some(former.spec.clone()),
        ..APIService::default()
    })
}

/// A Pod that is ready behind the former Service; an empty one where the endpoints are no Pods.
async fn running(client: &Client, former: &Former) -> Result<Option<Pod>, kube::Error> {
    let target = target(former);
    let Some((namespace, name)) = target.split_once('/') else {
        return Ok(None);
    };
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = slices.list(&of_service).await?.items;
    if observe::ready_endpoints(&slices) == 0 {
        return Ok(None);
    }
    let mut endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let pod = endpoints.find_map(|endpoint| {
        let target = endpoint.target_ref.as_ref()?;
        (target.kind.as_deref() == Some("Pod")).then(|| target.name.clone())?
    });
    let Some(pod) = pod else {
        return Ok(Some(Pod::default()));
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let named = ListParams::default().fields(&format!("metadata.name={pod}"));
    Ok(Some(
        pods.list(&named)
            .await?
            .items
            .into_iter()
            .next()
            .unwrap_or_default(),
    ))
}

/// Namespace and name of the Deployment that made this Pod: its `ReplicaSet`'s name without the hash.
fn deployment(pod: &Pod) -> Option<(String, String)> {
    let hash = pod.labels().get("pod-template-hash")?;
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.kind == "ReplicaSet")?;
    let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    Some((pod.namespace()?, name.to_owned()))
}

/// Gives `service`, which is ours, back to the server that it pointed at before, if that still runs. Says whether.
pub(crate) async fn give_back(client: &Client, service: &APIService) -> Result<bool, kube::Error> {
    let Some(former) = former(service) else {
        return Ok(false);
    };
    match running(client, &former).await {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(false),
        // Not being let see must not hold up the end of the stack.
        Err(error) if cluster::is_forbidden(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    let patch = restored(service, &former);
    let api: Api<APIService> = Api::all(client.clone());
    let parameters = PatchParams {
        field_manager: Some(contract::names::MANAGED_BY.to_owned()),
        ..PatchParams::default()
    };
    api.patch(&service.name_any(), &parameters, &Patch::Merge(patch))
        .await
        .map(|_| true)
}

/// In one write: a Service of theirs with a caBundle of ours would be refused.
fn restored(service: &APIService, former: &Former) -> Value {
    let labels: serde_json::Map<_, _> = desired::labels()
        .into_keys()
        .map(|key| {
            let value = former.labels.get(&key).map_or(Value::Null, |value| json!(value));
            (key, value)
        })
        .collect();
    let mut spec = serde_json::to_value(&former.spec).unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        for field in ["caBundle", "insecureSkipTLSVerify"] {
            spec.entry(field).or_insert(Value::Null);
        }
    }
    json!({
        "metadata": {
            "uid": service.metadata.uid,
            "resourceVersion": service.metadata.resource_version,
            "labels": labels,
            "annotations": {FORMER: null},
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests;
