//! The end of a stack, and of the operator's namespace. The registration goes first and is waited for: an APIService
//! whose Service is gone breaks discovery, and with it the deletion of every namespace.

use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use crate::api::MetricsStack;
use crate::cluster::{self, FINALIZER};
use crate::kinds::{self, Kind};
use crate::{adopt, desired, registration, verify};

/// Time for kube-apiserver to stop announcing a version whose APIService is gone. It takes milliseconds; after this
/// long somebody else has registered it again.
const UNREGISTERED: Duration = Duration::from_secs(10);
/// Time for each kube-apiserver to hear of an APIService that points at another Service. It is a watch: milliseconds.
const HEARD: Duration = Duration::from_secs(2);
/// Pause between looks at what is on its way out.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the end is not reached yet. Everything here can be done again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinalizeError {
    /// Something could not be deleted.
    #[error("failed to delete {what}: {}", cluster::describe(.source))]
    Delete {
        /// What.
        what: String,
        /// Why.
        source: kube::Error,
    },
    /// An APIService stays although it was deleted: it has a finalizer of somebody else.
    #[error("APIService {0} was deleted but stays: remove the finalizers in its metadata")]
    Stays(String),
    /// The stack could not be let go.
    #[error("failed to remove the finalizer {FINALIZER} from MetricsStack {}: {}", names::STACK_NAME, cluster::describe(.0))]
    Release(#[source] kube::Error),
    /// The stack could not be told that nobody keeps it.
    #[error("failed to write the status of MetricsStack {}: {}", names::STACK_NAME, cluster::describe(.0))]
    Tell(#[source] kube::Error),
}

/// How much goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything that is ours.
    Everything,
    /// What does not go with the namespace.
    OutsideNamespace,
}

/// Removes what is ours, the registration first. What is not ours is left alone, so this is harmless when there is
/// nothing.
pub async fn remove(client: &Client, namespace: &str, extent: Extent) -> Result<(), FinalizeError> {
    remove_registration(client, namespace).await?;
    for kind in kinds::made(namespace) {
        if extent == Extent::Everything || kind.namespace != Some(namespace) {
            delete(client, &kind).await?;
        }
    }
    if extent == Extent::Everything {
        // By now metrics-api has lost the right to make new ones.
        delete(client, &kinds::trust_records(namespace)).await?;
    }
    Ok(())
}

async fn delete(client: &Client, kind: &Kind<'_>) -> Result<Vec<String>, FinalizeError> {
    kind.delete(client, |_| false)
        .await
        .map_err(|source| FinalizeError::Delete {
            what: format!("what is ours of kind {}", kind.resource.kind),
            source,
        })
}

async fn remove_registration(client: &Client, namespace: &str) -> Result<(), FinalizeError> {
    give_back(client, namespace).await?;
    let mut deleted = delete(client, &kinds::registration()).await?;
    deleted.extend(delete_unlabelled(client, namespace).await?);
    let deadline = Instant::now() + UNREGISTERED;
    for name in deleted {
        while lingers(client, &name).await? {
            if Instant::now() >= deadline {
                return Err(FinalizeError::Stays(name));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let version = name.split('.').next().unwrap_or_default();
        let path = format!("/apis/{}/{version}", names::METRICS_GROUP);
        while announces(client, &path).await && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// What was adopted goes back to the server that it pointed at before, where that still runs.
async fn give_back(client: &Client, namespace: &str) -> Result<(), FinalizeError> {
    let on_error = |source| FinalizeError::Delete {
        what: "the APIServices of ours that were somebody else's (they are given back)".to_owned(),
        source,
    };
    let mut given_back = false;
    for service in cluster::api_services(client).await.map_err(on_error)? {
        if registration::is_ours(&service, namespace)
            && service.metadata.deletion_timestamp.is_none()
            && adopt::give_back(client, &service).await.map_err(on_error)?
        {
            tracing::info!(
                name = service.name_any(),
                "given back to the server that it pointed at before"
            );
            given_back = true;
        }
    }
    if given_back {
        // Until then metrics-api goes on answering.
        tokio::time::sleep(HEARD).await;
    }
    Ok(())
}

/// One that has lost our label points at our Service all the same, and would point at nothing.
async fn delete_unlabelled(client: &Client, namespace: &str) -> Result<Vec<String>, FinalizeError> {
    let on_error = |source| FinalizeError::Delete {
        what: "the APIServices that point at our Service".to_owned(),
        source,
    };
    let api = cluster::objects(client, &kinds::registration().resource, None);
    let mut deleted = Vec::new();
    for service in cluster::api_services(client).await.map_err(on_error)? {
        if !desired::ours(&service.metadata) && registration::points_at_us(&service, namespace) {
            let (name, uid) = (service.name_any(), service.uid());
            cluster::delete(&api, &name, uid).await.map_err(on_error)?;
            tracing::info!(name, "deleted: it had lost its label, but pointed at our Service");
            deleted.push(name);
        }
    }
    Ok(deleted)
}

async fn lingers(client: &Client, name: &str) -> Result<bool, FinalizeError> {
    cluster::objects(client, &kinds::registration().resource, None)
        .get_metadata_opt(name)
        .await
        .map(|found| found.is_some_and(|object| object.metadata.deletion_timestamp.is_some()))
        .map_err(|source| FinalizeError::Delete {
            what: format!("APIService {name}"),
            source,
        })
}

/// Whether kube-apiserver still passes requests for this version on. Only its own 404 is a no.
async fn announces(client: &Client, path: &str) -> bool {
    const LIMIT: usize = 1 << 20;
    match verify::get(client, path, LIMIT).await {
        Ok(_) => true,
        Err(reason) => !reason.ends_with("(404)"),
    }
}

/// Adds our finalizer, so that a deletion waits for us.
pub async fn hold(client: &Client, stack: &MetricsStack) -> Result<(), kube::Error> {
    let mut finalizers = stack.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(client, stack, &finalizers).await
}

/// Whether our finalizer is there.
#[must_use]
pub fn holds(stack: &MetricsStack) -> bool {
    stack.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Removes our finalizer, and no other.
pub async fn release(client: &Client) -> Result<(), FinalizeError> {
    const TRIES: usize = 5;
    let api: Api<MetricsStack> = Api::all(client.clone());
    let mut tries = 0;
    loop {
        let Some(stack) = api
            .get_opt(names::STACK_NAME)
            .await
            .map_err(FinalizeError::Release)?
        else {
            return Ok(());
        };
        if !holds(&stack) {
            return Ok(());
        }
        let others: Vec<_> = stack
            .finalizers()
            .iter()
            .filter(|finalizer| *finalizer != FINALIZER)
            .cloned()
            .collect();
        match set_finalizers(client, &stack, &others).await {
            Ok(()) => return Ok(()),
            Err(error) if cluster::is_not_found(&error) => return Ok(()),
            // Somebody changed the stack in between.
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => tries += 1,
            Err(error) => return Err(FinalizeError::Release(error)),
        }
    }
}

async fn set_finalizers(
    client: &Client,
    stack: &MetricsStack,
    finalizers: &[String],
) -> Result<(), kube::Error> {
    let api: Api<MetricsStack> = Api::all(client.clone());
    let patch = json!({"metadata": {
        // A list is replaced as a whole: not if somebody else has changed it.
        "resourceVersion": stack.metadata.resource_version,
        "uid": stack.metadata.uid,
        "finalizers": finalizers,
    }});
    let parameters = PatchParams {
        field_manager: Some(names::MANAGED_BY.to_owned()),
        ..PatchParams::default()
    };
    api.patch_metadata(names::STACK_NAME, &parameters, &Patch::Merge(patch))
        .await
        .map(|_| ())
}

/// The operator's namespace is being deleted, and with it the operator: what it leaves behind elsewhere goes, and the
/// stack is let go so that it is not stuck without anybody who finalizes it.
pub async fn leave(client: &Client, namespace: &str) -> Result<(), FinalizeError> {
    remove(client, namespace, Extent::OutsideNamespace).await?;
    release(client).await?;
    say_so(client, namespace).await
}

/// Nobody keeps the status of a stack that stays behind: it must not go on saying that all is well.
async fn say_so(client: &Client, namespace: &str) -> Result<(), FinalizeError> {
    const REASON: &str = "OperatorGone";
    let api: Api<MetricsStack> = Api::all(client.clone());
    let Some(stack) = api
        .get_opt(names::STACK_NAME)
        .await
        .map_err(FinalizeError::Tell)?
    else {
        return Ok(());
    };
    let mut conditions = stack.status.iter().flat_map(|status| &status.conditions);
    if conditions.any(|condition| condition.reason == REASON) {
        return Ok(());
    }
    let now = Timestamp::now();
    let condition = Condition {
        type_: "Ready".to_owned(),
        status: "False".to_owned(),
        reason: REASON.to_owned(),
        message: format!(
            "the operator's namespace {namespace} was deleted, and with it everything of this stack: install the \
             operator again, or delete the stack"
        ),
        observed_generation: stack.metadata.generation,
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    cluster::write_status(client, &json!({"conditions": [condition]}))
        .await
        .map_err(FinalizeError::Tell)
}

#[cfg(test)]
mod tests;
