//! The way to the objects: names, labels and errors of calls to kube-apiserver.

use std::error::Error as _;
use std::time::Duration;

use contract::names;
use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Config, Resource as _};
use serde_json::{Value, json};

use crate::api::MetricsStack;

/// Finalizer of a stack: there is something to clean up.
pub const FINALIZER: &str = "metricsstack.dev/cleanup";
/// Name of the Lease of whoever reconciles.
pub const LEASE: &str = "metricsstack-operator";
/// Names of the Secrets.
pub(crate) const SECRETS: [&str; 2] = [names::CA_SECRET, names::SERVING_SECRET];
/// Namespace of the control plane's own objects.
pub(crate) const KUBE_SYSTEM: &str = "kube-system";

/// Time for kube-apiserver to answer a call that is no watch.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A client for calls: shorter timeouts than for watches, and no silent retries. A reconcile is tried again as a whole,
/// and a 503 of the aggregator is news.
pub fn calls(config: &Config) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    config.read_timeout = Some(CALL_TIMEOUT);
    config.write_timeout = Some(CALL_TIMEOUT);
    config.connect_timeout = Some(CALL_TIMEOUT);
    config.default_retry = false;
    Client::try_from(config)
}

/// Selects what is ours.
pub(crate) fn our_label() -> String {
    format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY)
}

/// Name of the `APIService` of a version of the group.
pub(crate) fn api_service_name(version: &str) -> String {
    format!("{version}.{}", names::METRICS_GROUP)
}

/// Names of the `APIServices` of the group.
pub(crate) fn api_service_names() -> [String; 2] {
    names::METRICS_VERSIONS.map(api_service_name)
}

/// The objects of a kind, in `namespace` or without one.
pub(crate) fn objects(
    client: &Client,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Writes the whole status of the stack; one that was deleted in between needs none.
///
/// Not by server-side apply, which refuses all of it where the `CustomResourceDefinition` is an earlier one that lacks a
/// field: by this patch kube-apiserver drops what it does not know and keeps the rest.
pub(crate) async fn write_status(client: &Client, status: &Value) -> Result<(), kube::Error> {
    let patch = json!([{"op": "add", "path": "/status", "value": status}]);
    let stacks = MetricsStack::url_path(&(), None);
    let url = format!(
        "{stacks}/{}/status?fieldManager={}",
        names::STACK_NAME,
        names::MANAGED_BY
    );
    let request = Request::patch(url)
        .header(CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether this is kube-apiserver's word that there is no such object.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the operator has no right to this.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether kube-apiserver refused what was sent. Then the next object may still be taken; otherwise it does not answer,
/// or not now.
pub(crate) fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// An error of a call in one line. kube prints a `Status` twice, and not the sources of a failed connection.
pub(crate) fn describe(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match (status.message.is_empty(), status.reason.is_empty()) {
            (false, _) => format!("{} ({})", status.message.trim(), status.code),
            (true, false) => format!("{} ({})", status.reason, status.code),
            (true, true) => format!("HTTP status {}", status.code),
        };
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Many errors print their source themselves.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

/// Deletes `name` if it is still the object with `uid`. Gone is as good as deleted.
pub(crate) async fn delete(
    api: &Api<DynamicObject>,
    name: &str,
    uid: Option<String>,
) -> Result<bool, kube::Error> {
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The `APIServices` of the group's versions that exist, whoever they belong to.
pub(crate) async fn api_services(client: &Client) -> Result<Vec<APIService>, kube::Error> {
    let api: Api<APIService> = Api::all(client.clone());
    let mut found = Vec::new();
    for name in api_service_names() {
        found.extend(api.get_opt(&name).await?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn errors_are_one_line_and_say_it_once() {
        let error = kube::Error::Api(Box::new(
            Status::failure("no such field", "Invalid").with_code(422),
        ));
        assert_eq!(describe(&error), "no such field (422)");
        let error = kube::Error::Service("no route".into());
        assert_eq!(describe(&error), "ServiceError: no route");
    }
}
