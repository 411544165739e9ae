//! An `APIService` of somebody else under each policy, from the first turn to the end of the stack.

use super::*;
use crate::adopt::FORMER;

const V1: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io";
const V1BETA1: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
const THEIR_SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/metrics-server-1";
const THEIR_POD: &str = "/api/v1/namespaces/kube-system/pods/metrics-server-7d8-x";

/// metrics-server as its manifests make it: it works, or its Service is gone.
fn with_metrics_server(adopt: &str, works: bool) -> (Fake, Reconciler) {
    let (fake, reconciler) = cluster(&json!({"apiService": {"adopt": adopt}}));
    metrics_server(&fake, works);
    (fake, reconciler)
}

pub(super) fn metrics_server(fake: &Fake, works: bool) {
    let (status, reason) = if works {
        ("True", "Passed")
    } else {
        ("False", "ServiceNotFound")
    };
    fake.put(
        V1BETA1,
        json!({"metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": "metrics-server"}},
            "spec": {"service": {"namespace": "kube-system", "name": "metrics-server", "port": 443},
                "group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": true,
                "groupPriorityMinimum": 100, "versionPriority": 100},
            "status": {"conditions": [{"type": "Available", "status": status, "reason": reason,
                "lastTransitionTime": "2026-11-24T05:00:00Z"}]}}),
    );
    if works {
        let target = json!({"kind": "Pod", "name": "metrics-server-7d8-x", "namespace": "kube-system"});
        fake.put(
            THEIR_SLICE,
            json!({"metadata": {"name": "metrics-server-1",
                    "labels": {"kubernetes.io/service-name": "metrics-server"}}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true}, "targetRef": target}]}),
        );
        fake.put(
            THEIR_POD,
            json!({"metadata": {"name": "metrics-server-7d8-x", "namespace": "kube-system",
                "labels": {"pod-template-hash": "7d8"}, "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "metrics-server-7d8", "uid": "1"}]}}),
        );
    }
}

fn service(fake: &Fake, path: &str) -> Value {
    fake.get(path).unwrap()["spec"]["service"]["name"].clone()
}

pub(super) async fn deleted(fake: &Fake, reconciler: &mut Reconciler) {
    let mut stack = fake.get(STACK).unwrap();
    stack["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
    fake.put(STACK, stack);
    for version in names::METRICS_VERSIONS {
        let call = format!("GET /apis/metrics.k8s.io/{version}");
        fake.always(&call, 404, status(404, "NotFound", "no"));
    }
    reconciler.reconcile().await.unwrap();
    assert!(fake.get(STACK).is_none());
}

#[tokio::test]
async fn one_that_works_is_taken_by_always_only_and_one_without_a_service_by_unmanaged_too() {
    for (adopt, works, taken) in [
        ("Never", true, false),
        ("Never", false, false),
        ("Unmanaged", true, false),
        ("Unmanaged", false, true),
        ("Always", true, true),
        ("Always", false, true),
    ] {
        let (fake, mut reconciler) = with_metrics_server(adopt, works);
        endpoint_is_ready(&fake);
        reconciler.reconcile().await.unwrap();
        let expected = if taken { "metrics-api" } else { "metrics-server" };
        assert_eq!(service(&fake, V1BETA1), expected, "{adopt} {works}");
        assert_eq!(fake.get(V1).is_some(), taken, "both or none: {adopt} {works}");
        let available = if taken { "True" } else { "False" };
        assert_eq!(condition(&fake, "Available").0, available, "{adopt} {works}");
    }
}

#[tokio::test]
async fn nothing_moves_before_ours_is_ready_and_then_all_in_one_write() {
    let (fake, mut reconciler) = with_metrics_server("Always", true);
    let before = fake.get(V1BETA1).unwrap();
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.get(V1BETA1).unwrap(), before);
    assert!(fake.get(V1).is_none());
    endpoint_is_ready(&fake);
    fake.writes();
    reconciler.reconcile().await.unwrap();
    let writes = fake.writes();
    assert_eq!(registrations(&writes).len(), 2, "{writes:?}");
    let after = fake.get(V1BETA1).unwrap();
    assert_eq!(after["spec"]["insecureSkipTLSVerify"], false);
    assert!(after["spec"]["caBundle"].is_string());
    let former: Value =
        serde_json::from_str(after["metadata"]["annotations"][FORMER].as_str().unwrap()).unwrap();
    assert_eq!(former["spec"]["service"]["name"], "metrics-server");
    let said = fake.get(STACK).unwrap()["status"]["findings"].to_string();
    for part in [
        "FormerServerRuns",
        "kubectl delete deployment --namespace kube-system metrics-server",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // What is kept stays, and nothing is written for it.
    reconciler.reconcile().await.unwrap();
    fake.writes();
    reconciler.reconcile().await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
    assert_eq!(fake.get(V1BETA1).unwrap()["metadata"], after["metadata"]);
}

#[tokio::test]
async fn a_version_that_cannot_be_taken_keeps_the_other() {
    let (fake, mut reconciler) = with_metrics_server("Always", true);
    endpoint_is_ready(&fake);
    fake.put(
        V1,
        json!({"metadata": {"name": "v1.metrics.k8s.io"},
            "spec": {"group": "metrics.k8s.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100}}),
    );
    reconciler.reconcile().await.unwrap();
    assert_eq!(registrations(&fake.writes()), [""; 0]);
    assert_eq!(service(&fake, V1BETA1), "metrics-server");
}

#[tokio::test(start_paused = true)]
async fn the_end_gives_it_back_where_the_other_one_still_runs() {
    let (fake, mut reconciler) = with_metrics_server("Always", true);
    endpoint_is_ready(&fake);
    reconciler.reconcile().await.unwrap();
    // By another process than the one that took it.
    deleted(&fake, &mut reconciler_for(&fake)).await;
    let back = fake.get(V1BETA1).unwrap();
    assert_eq!(service(&fake, V1BETA1), "metrics-server");
    assert_eq!(back["spec"]["insecureSkipTLSVerify"], true);
    assert_eq!(back["spec"]["caBundle"], Value::Null);
    assert_eq!(back["metadata"]["annotations"][FORMER], Value::Null);
    assert_eq!(
        back["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        Value::Null
    );
    assert_eq!(back["metadata"]["labels"]["k8s-app"], "metrics-server");
    assert!(fake.get(V1).is_none(), "that one was ours");
}

#[tokio::test]
async fn the_end_deletes_it_where_nobody_would_answer() {
    let (fake, mut reconciler) = with_metrics_server("Always", true);
    endpoint_is_ready(&fake);
    reconciler.reconcile().await.unwrap();
    fake.remove(THEIR_SLICE);
    deleted(&fake, &mut reconciler).await;
    assert!(fake.get(V1BETA1).is_none() && fake.get(V1).is_none());
}
