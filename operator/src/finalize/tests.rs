use serde_json::{Value, json};

use super::*;
use crate::fake::{Fake, status};

const STACK: &str = "/apis/metricsstack.dev/v1alpha1/metricsstacks/default";
const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn ours() -> Value {
    json!({"app.kubernetes.io/managed-by": "metricsstack-operator"})
}

fn object(name: &str, labels: &Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

/// A cluster with some of our objects and one like each of somebody else.
fn cluster() -> Fake {
    let fake = Fake::default();
    let ours = ours();
    for collection in [
        APISERVICES,
        "/api/v1/namespaces/ns/secrets",
        "/api/v1/namespaces/ns/services",
        "/apis/apps/v1/namespaces/ns/deployments",
        &format!("{RBAC}/clusterroles"),
        &format!("{RBAC}/namespaces/kube-system/rolebindings"),
    ] {
        let name = match collection {
            APISERVICES => "v1.metrics.k8s.io",
            "/api/v1/namespaces/ns/secrets" => "metrics-api-ca",
            _ => "ours",
        };
        fake.put(&format!("{collection}/{name}"), object(name, &ours));
        fake.put(
            &format!("{collection}/theirs"),
            object("theirs", &json!({"app.kubernetes.io/managed-by": "Helm"})),
        );
    }
    fake.put(
        "/api/v1/namespaces/ns/configmaps/metrics-api-kubelet-trust-07",
        object(
            "metrics-api-kubelet-trust-07",
            &json!({"metricsstack.dev/kubelet-trust": "true"}),
        ),
    );
    fake
}

#[tokio::test]
async fn the_registration_goes_first_then_everything_else_and_nothing_of_others() {
    let fake = cluster();
    remove(&fake.client(), "ns", Extent::Everything).await.unwrap();
    let writes = fake.writes();
    assert_eq!(writes[0], format!("DELETE {APISERVICES}/v1.metrics.k8s.io"));
    assert_eq!(writes.len(), 7, "{writes:?}");
    assert!(
        writes.iter().all(|write| !write.ends_with("theirs")),
        "{writes:?}"
    );
    assert_eq!(
        writes[6],
        "DELETE /api/v1/namespaces/ns/configmaps/metrics-api-kubelet-trust-07"
    );
    // Harmless twice.
    remove(&fake.client(), "ns", Extent::Everything).await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn nothing_else_goes_while_the_registration_cannot() {
    let fake = cluster();
    fake.always(
        &format!("DELETE {APISERVICES}/v1.metrics.k8s.io"),
        500,
        status(500, "InternalError", "no"),
    );
    let error = remove(&fake.client(), "ns", Extent::Everything)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to delete what is ours of kind APIService: no (500)"
    );
    assert_eq!(fake.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_stays_is_named() {
    let fake = cluster();
    let mut held = fake.get(&format!("{APISERVICES}/v1.metrics.k8s.io")).unwrap();
    held["metadata"]["finalizers"] = json!(["example.com/theirs"]);
    fake.put(&format!("{APISERVICES}/v1.metrics.k8s.io"), held);
    let error = remove(&fake.client(), "ns", Extent::Everything)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("v1.metrics.k8s.io was deleted but stays"),
        "{error}"
    );
}

#[tokio::test]
async fn with_the_namespace_only_what_is_outside_goes_and_the_stack_is_let_go() {
    let fake = cluster();
    fake.put(
        STACK,
        json!({"apiVersion": "metricsstack.dev/v1alpha1", "kind": "MetricsStack", "spec": {},
            "metadata": {"name": "default", "finalizers": ["example.com/theirs", FINALIZER]}}),
    );
    leave(&fake.client(), "ns").await.unwrap();
    assert_eq!(
        fake.writes(),
        [
            format!("DELETE {APISERVICES}/v1.metrics.k8s.io"),
            format!("DELETE {RBAC}/clusterroles/ours"),
            format!("DELETE {RBAC}/namespaces/kube-system/rolebindings/ours"),
            format!("PATCH {STACK}"),
            format!("PATCH {STACK}/status"),
        ]
    );
    assert_eq!(
        fake.get(STACK).unwrap()["status"]["conditions"][0]["reason"],
        "OperatorGone"
    );
    leave(&fake.client(), "ns").await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
    assert_eq!(
        fake.get(STACK).unwrap()["metadata"]["finalizers"],
        json!(["example.com/theirs"])
    );
}

#[tokio::test]
async fn a_copy_of_an_object_that_is_beyond_our_rights_holds_nothing_up() {
    let fake = cluster();
    let copy = "/api/v1/namespaces/ns/services/copy";
    fake.put(copy, object("copy", &ours()));
    let refusal = status(403, "Forbidden", "cannot delete resource");
    fake.always(&format!("DELETE {copy}"), 403, refusal.clone());
    remove(&fake.client(), "ns", Extent::Everything).await.unwrap();
    assert!(fake.get(copy).is_some());
    // Without the right to delete what is ours, it is not over.
    let own = "/api/v1/namespaces/ns/services/metrics-api";
    fake.put(own, object("metrics-api", &ours()));
    fake.always(&format!("DELETE {own}"), 403, refusal);
    assert!(remove(&fake.client(), "ns", Extent::Everything).await.is_err());
}

#[tokio::test]
async fn an_api_service_of_ours_without_a_label_goes_too() {
    let fake = cluster();
    for (version, service) in [("v1", "metrics-api"), ("v1beta1", "metrics-server")] {
        fake.put(
            &format!("{APISERVICES}/{version}.metrics.k8s.io"),
            json!({"metadata": {"name": format!("{version}.metrics.k8s.io")},
                "spec": {"service": {"namespace": "ns", "name": service},
                    "groupPriorityMinimum": 100, "versionPriority": 100}}),
        );
    }
    remove(&fake.client(), "ns", Extent::Everything).await.unwrap();
    assert!(fake.get(&format!("{APISERVICES}/v1.metrics.k8s.io")).is_none());
    assert!(
        fake.get(&format!("{APISERVICES}/v1beta1.metrics.k8s.io"))
            .is_some()
    );
}
