use serde_json::json;

use super::*;

fn service(spec: &Value, condition: &Value) -> APIService {
    let mut whole = json!({"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
        "versionPriority": 100});
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io",
            "labels": {"k8s-app": "metrics-server", "app.kubernetes.io/managed-by": "Helm"}},
        "spec": whole,
        "status": {"conditions": [condition]},
    }))
    .unwrap()
}

fn theirs() -> Value {
    json!({"service": {"namespace": "kube-system", "name": "metrics-server", "port": 443},
        "insecureSkipTLSVerify": true})
}

#[test]
fn what_each_policy_takes() {
    use AdoptPolicy::{Always, Never, Unmanaged};
    let now: Timestamp = "2026-11-24T05:10:00Z".parse().unwrap();
    let condition = |status: &str, reason: &str, since: &str| {
        json!({"type": "Available", "status": status, "reason": reason,
            "lastTransitionTime": format!("2026-11-24T05:{since}Z")})
    };
    for (condition, unmanaged) in [
        (condition("True", "Passed", "00:00"), false),
        (condition("False", "FailedDiscoveryCheck", "00:00"), false),
        (condition("False", "ServiceNotFound", "00:00"), true),
        (condition("False", "MissingEndpoints", "09:00"), true),
        (condition("False", "EndpointsNotFound", "09:00"), true),
        // It may be starting again.
        (condition("False", "MissingEndpoints", "09:30"), false),
        (condition("Unknown", "ServiceNotFound", "00:00"), false),
    ] {
        let found = service(&theirs(), &condition);
        assert!(!takes(Never, &found, now), "{condition}");
        assert_eq!(takes(Unmanaged, &found, now), unmanaged, "{condition}");
        assert!(takes(Always, &found, now), "{condition}");
    }
    let local = service(&json!({}), &condition("True", "Local", "00:00"));
    assert!(!takes(Always, &local, now));
}

#[test]
fn what_is_kept_gives_everything_back() {
    let condition = json!({"type": "Available", "status": "True"});
    let before = service(&theirs(), &condition);
    let mut adopted = service(
        &json!({"service": {"namespace": "ns", "name": "metrics-api"}}),
        &condition,
    );
    let kept = kept(&before, false).unwrap();
    adopted.annotations_mut().insert(FORMER.to_owned(), kept.clone());
    assert_eq!(
        super::kept(&adopted, true),
        Some(kept),
        "what is kept stays as it is"
    );
    let former = former(&adopted).unwrap();
    assert_eq!(former.spec, before.spec.unwrap());
    let patch = restored(&adopted, &former);
    assert_eq!(
        patch["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "Helm"
    );
    assert_eq!(patch["metadata"]["labels"]["metricsstack.dev/stack"], Value::Null);
    assert_eq!(patch["spec"]["insecureSkipTLSVerify"], true);
    assert_eq!(patch["spec"].get("caBundle"), Some(&Value::Null));
}

#[test]
fn an_annotation_of_another_version_or_without_sense_is_nothing() {
    let condition = json!({"type": "Available", "status": "True"});
    let mut found = service(&theirs(), &condition);
    let mut other = service(&theirs(), &condition);
    other.spec.as_mut().unwrap().version = Some("v1".to_owned());
    for annotation in ["{}".to_owned(), String::new(), kept(&other, false).unwrap()] {
        found.annotations_mut().insert(FORMER.to_owned(), annotation);
        assert_eq!(former(&found), None);
    }
}

#[test]
fn a_deployment_is_known_by_its_pod() {
    let pod = |owner: &str| {
        serde_json::from_value(json!({"metadata": {"name": "metrics-server-7d8-x", "namespace": "kube-system",
            "labels": {"pod-template-hash": "7d8"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "metrics-server-7d8", "uid": "1"}]}}))
        .unwrap()
    };
    let expected = ("kube-system".to_owned(), "metrics-server".to_owned());
    assert_eq!(deployment(&pod("ReplicaSet")), Some(expected));
    assert_eq!(deployment(&pod("DaemonSet")), None);
    assert_eq!(deployment(&Pod::default()), None);
}
