mod adopt;
mod blindness;
mod interrupted;
mod refusal;
mod rights;
mod rotation;

use serde_json::{Value, json};

use super::*;
use crate::fake::{Fake, status};

const STACK: &str = "/apis/metricsstack.dev/v1alpha1/metricsstacks/default";
const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices/metrics-api-1";
const CA: &str = "/api/v1/namespaces/ns/secrets/metrics-api-ca";
const SERVING: &str = "/api/v1/namespaces/ns/secrets/metrics-api-serving";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/metrics-api";

fn cluster(spec: &Value) -> (Fake, Reconciler) {
    let fake = Fake::default();
    fake.put(
        STACK,
        json!({"apiVersion": "metricsstack.dev/v1alpha1", "kind": "MetricsStack", "spec": spec,
            "metadata": {"name": "default", "generation": 1}}),
    );
    let reconciler = reconciler_for(&fake);
    (fake, reconciler)
}

/// An operator that has just started.
fn reconciler_for(fake: &Fake) -> Reconciler {
    let environment = Environment::new("ns", "image");
    let reports = reports::Reader::new(fake.client(), "ns");
    let client = fake.client();
    let api_servers = ApiServers::with(client.clone(), std::sync::Arc::new(move |_| Ok(client.clone())));
    let metrics = Metrics::default();
    Reconciler::new(&fake.client(), api_servers, environment, reports, "pod", metrics)
}

fn endpoint_is_ready(fake: &Fake) {
    fake.put(
        SLICE,
        json!({"metadata": {"name": "metrics-api-1", "labels": {"kubernetes.io/service-name": "metrics-api"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]}),
    );
    for version in names::METRICS_VERSIONS {
        let list = json!({"kind": "NodeMetricsList", "apiVersion": format!("metrics.k8s.io/{version}"), "items": [{}]});
        fake.always(&format!("GET /apis/metrics.k8s.io/{version}/nodes"), 200, list);
    }
}

/// A cluster of one node in which everything works, but that no replica reports.
async fn working() -> (Fake, Reconciler) {
    let (fake, mut reconciler) = cluster(&json!({}));
    fake.put(
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        json!({"metadata": {"name": "extension-apiserver-authentication"},
            "data": {"requestheader-client-ca-file": "-----BEGIN CERTIFICATE-----"}}),
    );
    let node = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/os": "linux"}}});
    fake.put("/api/v1/nodes/a", node);
    endpoint_is_ready(&fake);
    reconciler.reconcile().await.unwrap();
    let mut deployment = fake.get(DEPLOYMENT).unwrap();
    deployment["status"] = json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1});
    fake.put(DEPLOYMENT, deployment);
    reconciler.reconcile().await.unwrap();
    (fake, reconciler)
}

fn condition(fake: &Fake, type_: &str) -> (String, String) {
    let status = fake.get(STACK).unwrap()["status"].clone();
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == type_)
        .unwrap();
    (
        found["status"].as_str().unwrap().to_owned(),
        found["reason"].as_str().unwrap().to_owned(),
    )
}

fn registrations(writes: &[String]) -> Vec<&str> {
    writes
        .iter()
        .filter(|write| write.contains(APISERVICES))
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn without_a_stack_nothing_is_written() {
    let (fake, mut reconciler) = cluster(&json!({}));
    fake.remove(STACK);
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn from_an_empty_cluster_to_a_quiet_one() {
    let (fake, mut reconciler) = cluster(&json!({}));
    let wait = reconciler.reconcile().await.unwrap();
    assert_eq!(wait, EAGER);
    let writes = fake.writes();
    assert_eq!(writes[0], format!("PATCH {STACK}"), "the finalizer comes first");
    assert_eq!(
        fake.get(STACK).unwrap()["metadata"]["finalizers"],
        json!([cluster::FINALIZER])
    );
    assert_eq!(registrations(&writes), [""; 0], "no endpoint is ready");
    assert_eq!(condition(&fake, "Ready").0, "False");
    assert_eq!(condition(&fake, "CertificatesReady").0, "True");
    let ca = fake.get(CA).unwrap();

    endpoint_is_ready(&fake);
    reconciler.reconcile().await.unwrap();
    let writes = fake.writes();
    assert_eq!(registrations(&writes).len(), 2);
    assert_eq!(
        condition(&fake, "Available"),
        ("True".to_owned(), "Read".to_owned())
    );
    assert_eq!(fake.get(CA).unwrap()["data"], ca["data"], "the authority is kept");

    reconciler.reconcile().await.unwrap();
    fake.writes();
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.writes(), [""; 0], "nothing changed, so nothing is written");
}

#[tokio::test]
async fn a_version_of_somebody_else_is_left_alone_and_named() {
    let (fake, mut reconciler) = cluster(&json!({}));
    endpoint_is_ready(&fake);
    fake.put(
        &format!("{APISERVICES}/v1beta1.metrics.k8s.io"),
        json!({"metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": "metrics-server"}},
            "spec": {"service": {"namespace": "kube-system", "name": "metrics-server"},
                "groupPriorityMinimum": 100, "versionPriority": 100}}),
    );
    reconciler.reconcile().await.unwrap();
    assert_eq!(registrations(&fake.writes()), [""; 0]);
    assert_eq!(condition(&fake, "Available").0, "False");
    let status = fake.get(STACK).unwrap()["status"].to_string();
    assert!(status.contains("kube-system/metrics-server"), "{status}");
}

#[tokio::test]
async fn a_registration_that_lost_its_label_is_taken_back() {
    let (fake, mut reconciler) = working().await;
    let path = format!("{APISERVICES}/v1beta1.metrics.k8s.io");
    let mut service = fake.get(&path).unwrap();
    let labels = service["metadata"]["labels"].take();
    fake.put(&path, service);
    fake.writes();
    reconciler.reconcile().await.unwrap();
    assert_eq!(registrations(&fake.writes()), [format!("PATCH {path}")]);
    assert_eq!(fake.get(&path).unwrap()["metadata"]["labels"], labels);
    assert_eq!(condition(&fake, "Available").0, "True");
}

#[tokio::test]
async fn what_the_status_says_of_the_deployment_is_of_after_the_write() {
    let (fake, mut reconciler) = working().await;
    let mut stack = fake.get(STACK).unwrap();
    stack["spec"] = json!({"metricsApi": {"replicas": 2}});
    stack["metadata"]["generation"] = json!(2);
    fake.put(STACK, stack);
    reconciler.reconcile().await.unwrap();
    let generation = || fake.get(STACK).unwrap()["status"]["observedGeneration"].clone();
    assert_eq!(generation(), 1);
    assert_eq!(condition(&fake, "MetricsApiReady").1, "RollingOut");
    let mut deployment = fake.get(DEPLOYMENT).unwrap();
    deployment["status"] = json!({"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2});
    fake.put(DEPLOYMENT, deployment);
    reconciler.reconcile().await.unwrap();
    assert_eq!(generation(), 2);
}

#[tokio::test]
async fn reports_are_read_with_the_authority_that_comes_back() {
    let (fake, mut reconciler) = working().await;
    fake.put(
        "/api/v1/namespaces/ns/pods/metrics-api-0",
        json!({"metadata": {"name": "metrics-api-0",
                "labels": {"app.kubernetes.io/name": "metrics-api", "metricsstack.dev/stack": "default"}},
            "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}}}]}}),
    );
    let call = "POST /api/v1/namespaces/ns/serviceaccounts/metrics-api-kubelet/token";
    fake.always(call, 403, status(403, "Forbidden", "no right"));
    fake.remove(CA);
    reconciler.reconcile().await.unwrap();
    let said = fake.get(STACK).unwrap()["status"]["findings"].to_string();
    assert!(said.contains("no token"), "asked with the authority: {said}");
}

#[tokio::test]
async fn a_deleted_stack_is_let_go_when_everything_is_gone() {
    let (fake, mut reconciler) = cluster(&json!({}));
    endpoint_is_ready(&fake);
    reconciler.reconcile().await.unwrap();
    fake.writes();
    let mut stack = fake.get(STACK).unwrap();
    stack["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
    stack["metadata"]["finalizers"]
        .as_array_mut()
        .unwrap()
        .push(json!("foregroundDeletion"));
    fake.put(STACK, stack);
    for version in names::METRICS_VERSIONS {
        fake.always(
            &format!("GET /apis/metrics.k8s.io/{version}"),
            404,
            status(404, "NotFound", "no"),
        );
    }
    reconciler.reconcile().await.unwrap();
    let writes = fake.writes();
    assert!(
        writes[..2].iter().all(|write| write.contains(APISERVICES)),
        "{writes:?}"
    );
    assert_eq!(writes.last().unwrap(), &format!("PATCH {STACK}"));
    assert_eq!(
        fake.get(STACK).unwrap()["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    assert!(fake.get(CA).is_none());
    // It is the garbage collector's now.
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn a_deleted_or_spoilt_authority_comes_back_as_it_was() {
    let (fake, mut reconciler) = cluster(&json!({}));
    reconciler.reconcile().await.unwrap();
    let ca = fake.get(CA).unwrap();
    fake.remove(CA);
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.get(CA).unwrap()["data"], ca["data"]);
    let mut spoilt = ca.clone();
    spoilt["data"]["tls.crt"] = json!("eHg=");
    fake.put(CA, spoilt);
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.get(CA).unwrap()["data"], ca["data"]);
}

#[tokio::test]
async fn certificates_that_cannot_be_kept_are_not_told_of_and_do_not_change_from_turn_to_turn() {
    for name in ["metrics-api-ca", "metrics-api-serving"] {
        let (fake, mut reconciler) = cluster(&json!({}));
        let path = format!("/api/v1/namespaces/ns/secrets/{name}");
        fake.put(
            &path,
            json!({"metadata": {"name": name}, "data": {"tls.crt": "eA=="}}),
        );
        reconciler.reconcile().await.unwrap();
        let found = condition(&fake, "CertificatesReady");
        assert_eq!(found, ("False".to_owned(), "ObjectConflict".to_owned()), "{name}");
        assert!(fake.get(STACK).unwrap()["status"].get("certificates").is_none());
        assert!(fake.get(&path).unwrap()["metadata"].get("labels").is_none());
        fake.writes();
        reconciler.reconcile().await.unwrap();
        assert_eq!(fake.writes(), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn another_stack_gets_another_authority() {
    let (fake, mut reconciler) = cluster(&json!({}));
    reconciler.reconcile().await.unwrap();
    let first = fake.get(CA).unwrap()["data"]["tls.key"].clone();
    let stack = fake.get(STACK).unwrap();
    fake.remove(STACK);
    fake.remove(CA);
    reconciler.reconcile().await.unwrap();
    fake.put(STACK, stack);
    reconciler.reconcile().await.unwrap();
    assert_ne!(fake.get(CA).unwrap()["data"]["tls.key"], first);
}

#[tokio::test]
async fn why_a_deleted_stack_is_still_there_is_an_event() {
    let (fake, mut reconciler) = cluster(&json!({}));
    reconciler.reconcile().await.unwrap();
    let mut stack = fake.get(STACK).unwrap();
    stack["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
    fake.put(STACK, stack);
    fake.always(&format!("DELETE {CA}"), 403, status(403, "Forbidden", "no right"));
    fake.writes();
    assert!(reconciler.reconcile().await.is_err());
    let writes = fake.writes();
    assert!(
        writes.last().unwrap().ends_with("/namespaces/default/events"),
        "{writes:?}"
    );
    assert!(fake.get(STACK).is_some());
}
