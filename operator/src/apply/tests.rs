mod fights;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::desired::objects;
use crate::fake::{Fake, status};
use crate::fixtures::planned;
use crate::monitoring::MonitoringKind;
use crate::observe::Observed;
use crate::plan::Registration;

const SERVICE: &str = "/api/v1/namespaces/ns/services/metrics-api";
const CA: &str = "/api/v1/namespaces/ns/secrets/metrics-api-ca";
const SERVING: &str = "/api/v1/namespaces/ns/secrets/metrics-api-serving";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/metricsstack:metrics-api";
const API_SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/metrics-api";

fn wanted(registration: Registration) -> Objects {
    let mut plan = planned(&json!({}), &Observed::default()).unwrap();
    plan.registration = registration;
    objects(&plan)
}

fn nothing_to_do() -> Applied {
    Applied {
        authority: true,
        certificates: true,
        ..Applied::default()
    }
}

fn is_registration(write: &str) -> bool {
    write.contains("/apiservices/")
}

#[tokio::test]
async fn the_registration_is_written_last_and_nothing_twice() {
    let (fake, objects) = (Fake::default(), wanted(Registration::Register));
    let mut hands = Applier::new(fake.client(), "ns");
    let applied = hands.apply(&objects).await;
    assert_eq!((applied.errors, applied.conflicts), (vec![], vec![]));
    let writes = fake.writes();
    assert_eq!(writes.len(), objects.base.len() + 2);
    let first = writes.iter().position(|write| is_registration(write)).unwrap();
    assert_eq!(first, objects.base.len(), "{writes:?}");

    assert_eq!(hands.apply(&objects).await, nothing_to_do());
    // Nor by a process that has just started.
    assert_eq!(
        Applier::new(fake.client(), "ns").apply(&objects).await,
        nothing_to_do()
    );
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_kube_apiserver_does_not_know_yet_is_bound_a_moment_later() {
    const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings/metrics-api";
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let refusal = status(404, "NotFound", "rolebindings \"metrics-api\" not found");
    fake.once(&format!("PATCH {BINDING}"), 404, refusal);
    let applied = Applier::new(fake.client(), "ns").apply(&objects).await;
    assert_eq!(applied.errors, [""; 0]);
    assert!(fake.get(BINDING).is_some());
}

#[tokio::test]
async fn what_is_changed_or_deleted_is_put_right_and_nothing_else_is_written() {
    let (fake, objects) = (Fake::default(), wanted(Registration::Register));
    let mut hands = Applier::new(fake.client(), "ns");
    assert_eq!(hands.apply(&objects).await.repaired, []);
    fake.writes();
    let change = |path: &str, field: &str, value: Value| {
        let mut object = fake.get(path).unwrap();
        object["spec"][field] = value;
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl-patch", "operation": "Update",
            "time": "2026-11-24T05:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {format!("f:{field}"): {}}}}]);
        fake.put(path, object);
    };
    change(SERVICE, "selector", json!({"app": "other"}));
    change(API_SERVICE, "caBundle", json!("b3RoZXI="));
    fake.remove(ROLE);
    let applied = hands.apply(&objects).await;
    assert_eq!(applied.writes, 3);
    assert_eq!(
        fake.writes(),
        [
            format!("PATCH {ROLE}"),
            format!("PATCH {SERVICE}"),
            format!("PATCH {API_SERVICE}")
        ]
    );
    let found: Vec<_> = applied
        .repaired
        .iter()
        .map(|repair| repair.found.as_str())
        .collect();
    assert_eq!(
        found,
        [
            "ClusterRole metricsstack:metrics-api was deleted",
            "Service ns/metrics-api was changed by the field manager \"kubectl-patch\" (Update)",
            "APIService v1.metrics.k8s.io had a caBundle that is not of metrics-api's authorities by the field manager \"kubectl-patch\" (Update)",
        ]
    );
    assert_eq!(hands.apply(&objects).await.repaired, []);
}

#[tokio::test]
async fn a_value_that_the_server_writes_in_its_own_way_is_not_written_for_ever() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let mut hands = Applier::new(fake.client(), "ns");
    let mut normalized = serde_json::to_value(&objects.base.last().unwrap().object).unwrap();
    normalized["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    fake.always(&format!("PATCH {DEPLOYMENT}"), 200, normalized.clone());
    fake.put(DEPLOYMENT, normalized);
    assert_eq!(hands.apply(&objects).await.errors, [""; 0]);
    fake.writes();
    assert_eq!(hands.apply(&objects).await, nothing_to_do());
}

#[tokio::test]
async fn an_object_without_our_label_is_reported_and_not_touched() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let theirs =
        json!({"metadata": {"name": "metrics-api", "labels": {"app.kubernetes.io/managed-by": "Helm"}}});
    fake.put(SERVICE, theirs);
    let applied = Applier::new(fake.client(), "ns").apply(&objects).await;
    assert_eq!(
        applied.conflicts,
        [Conflict {
            object: "Service ns/metrics-api".to_owned()
        }]
    );
    assert!(fake.writes().iter().all(|write| !write.ends_with(SERVICE)));
    assert_eq!(
        fake.get(SERVICE).unwrap()["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "Helm"
    );
}

#[tokio::test]
async fn one_refused_object_does_not_keep_the_others_but_silence_does() {
    let (fake, objects) = (Fake::default(), wanted(Registration::Register));
    let message = "Deployment.apps \"metrics-api\" is invalid: spec.replicas: Invalid value: -1";
    fake.always(
        &format!("PATCH {DEPLOYMENT}"),
        422,
        status(422, "Invalid", message),
    );
    let applied = Applier::new(fake.client(), "ns").apply(&objects).await;
    assert_eq!(
        applied.errors,
        [format!("Deployment ns/metrics-api: {message} (422)")]
    );
    assert_eq!(
        fake.writes()
            .iter()
            .filter(|write| is_registration(write))
            .count(),
        2
    );

    let fake = Fake::default();
    fake.always(
        &format!("PATCH {SERVICE}"),
        500,
        status(500, "InternalError", "etcd is away"),
    );
    let applied = Applier::new(fake.client(), "ns").apply(&objects).await;
    assert_eq!(applied.errors, ["Service ns/metrics-api: etcd is away (500)"]);
    let writes = fake.writes();
    assert!(writes.last().unwrap().ends_with(SERVICE), "{writes:?}");
}

#[tokio::test]
async fn what_cannot_be_changed_is_made_again() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/metricsstack:metrics-api";
    let mut theirs = serde_json::to_value(
        &objects
            .base
            .iter()
            .find(|object| object.describe().ends_with("Binding metricsstack:metrics-api"))
            .unwrap()
            .object,
    )
    .unwrap();
    theirs["roleRef"]["name"] = json!("cluster-admin");
    fake.put(binding, theirs);
    fake.always(
        &format!("PATCH {binding}"),
        422,
        status(422, "Invalid", "roleRef: Invalid value: cannot change roleRef"),
    );
    Applier::new(fake.client(), "ns").apply(&objects).await;
    let writes: Vec<_> = fake
        .writes()
        .into_iter()
        .filter(|write| write.ends_with(binding))
        .collect();
    assert_eq!(
        writes,
        [
            format!("PATCH {binding}"),
            format!("DELETE {binding}"),
            format!("PATCH {binding}")
        ]
    );
}

#[tokio::test]
async fn only_objects_of_ours_without_use_are_pruned() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let old = |managed_by: &str| json!({"metadata": {"name": "old", "labels": {"app.kubernetes.io/managed-by": managed_by}}});
    let ours = "/apis/rbac.authorization.k8s.io/v1/clusterroles/old";
    let theirs = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/old";
    fake.put(ours, old("metricsstack-operator"));
    fake.put(theirs, old("Helm"));
    let registered = "/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io";
    fake.put(registered, old("metricsstack-operator"));
    assert_eq!(
        Applier::new(fake.client(), "ns").apply(&objects).await.errors,
        [""; 0]
    );
    assert!(fake.get(ours).is_none());
    assert!(fake.get(theirs).is_some());
    assert!(fake.get(registered).is_some(), "stays while no endpoint is ready");
}

#[tokio::test]
async fn our_registration_goes_when_a_version_is_somebody_elses() {
    let fake = Fake::default();
    let mut hands = Applier::new(fake.client(), "ns");
    hands.apply(&wanted(Registration::Register)).await;
    let theirs = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    fake.put(
        theirs,
        json!({"metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": "metrics-server"}}}),
    );
    fake.writes();
    hands.apply(&wanted(Registration::Withheld(Vec::new()))).await;
    let writes: Vec<_> = fake
        .writes()
        .into_iter()
        .filter(|write| is_registration(write))
        .collect();
    assert_eq!(
        writes,
        ["DELETE /apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io"]
    );
    assert!(fake.get(theirs).is_some());
}

#[tokio::test]
async fn what_has_no_use_goes_after_the_deployment_that_used_it() {
    const BUNDLE: &str = "/api/v1/namespaces/ns/configmaps/metrics-api-kubelet-ca";
    let objects = wanted(Registration::Register);
    let old = json!({"metadata": {"name": "metrics-api-kubelet-ca",
        "labels": {"app.kubernetes.io/managed-by": "metricsstack-operator"}}});
    let fake = Fake::default();
    fake.put(BUNDLE, old.clone());
    Applier::new(fake.client(), "ns").apply(&objects).await;
    let writes = fake.writes();
    let at = |wanted: String| writes.iter().position(|write| *write == wanted).unwrap();
    let deleted = at(format!("DELETE {BUNDLE}"));
    assert!(deleted > at(format!("PATCH {DEPLOYMENT}")), "{writes:?}");
    assert!(
        writes[deleted..]
            .iter()
            .skip(1)
            .all(|write| is_registration(write)),
        "{writes:?}"
    );
    // A Deployment that cannot be written may still mount it.
    let fake = Fake::default();
    fake.put(BUNDLE, old);
    fake.always(&format!("PATCH {DEPLOYMENT}"), 422, status(422, "Invalid", "no"));
    Applier::new(fake.client(), "ns").apply(&objects).await;
    assert!(fake.get(BUNDLE).is_some());
}

#[tokio::test]
async fn what_somebody_added_beside_ours_is_taken_over_and_goes() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let mut hands = Applier::new(fake.client(), "ns");
    hands.apply(&objects).await;
    fake.writes();
    let mut service = fake.get(SERVICE).unwrap();
    service["metadata"]["managedFields"] = json!([
        {"manager": "metricsstack-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:ports": {}}}},
        {"manager": "kubectl-patch", "operation": "Update", "fieldsV1": {"f:spec": {"f:externalIPs": {}}}},
    ]);
    fake.put(SERVICE, service);
    assert_eq!(hands.apply(&objects).await.writes, 1);
    // First the ownership, then the apply that removes the field.
    assert_eq!(
        fake.writes(),
        [format!("PATCH {SERVICE}"), format!("PATCH {SERVICE}")]
    );
    assert_eq!(
        fake.get(SERVICE).unwrap()["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn without_a_place_for_the_authority_what_runs_keeps_its_certificates() {
    let objects = wanted(Registration::Register);
    let theirs = Fake::default();
    theirs.put(CA, json!({"metadata": {"name": "metrics-api-ca"}}));
    let refused = Fake::default();
    refused.always(
        &format!("PATCH {CA}"),
        403,
        status(403, "Forbidden", "exceeded quota"),
    );
    for (fake, errors) in [(theirs, 0), (refused, 1)] {
        let applied = Applier::new(fake.client(), "ns").apply(&objects).await;
        assert!(!applied.authority, "{applied:?}");
        assert_eq!(applied.errors.len(), errors);
        assert!(fake.writes().iter().all(|write| write.ends_with(CA)));
    }
    let fake = Fake::default();
    assert!(Applier::new(fake.client(), "ns").apply(&objects).await.authority);
}

#[tokio::test]
async fn monitoring_that_is_refused_or_does_not_answer_keeps_nothing_else() {
    let observed = Observed {
        monitoring_kinds: Some(MonitoringKind::ALL.into()),
        ..Observed::default()
    };
    let mut plan = planned(&json!({}), &observed).unwrap();
    plan.registration = Registration::Register;
    let objects = objects(&plan);
    let fake = Fake::default();
    let rule = "PATCH /apis/monitoring.coreos.com/v1/namespaces/ns/prometheusrules/metrics-api";
    fake.always(rule, 500, status(500, "InternalError", "failed calling webhook"));
    let applied = Applier::new(fake.client(), "ns").apply(&objects).await;
    assert!(applied.registered && applied.authority);
    let errors = ["PrometheusRule ns/metrics-api: failed calling webhook (500)"];
    assert_eq!(applied.monitoring_errors, errors);
    assert_eq!(applied.errors, [""; 0]);
}
