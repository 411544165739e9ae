//! What cannot be read.

use super::*;

#[tokio::test]
async fn an_unreadable_secret_is_not_an_absent_one() {
    let (fake, mut reconciler) = cluster(&json!({}));
    fake.always(
        &format!("GET {CA}"),
        403,
        status(403, "Forbidden", "secrets is forbidden"),
    );
    let error = reconciler.reconcile().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to read the certificate authority's Secret: secrets is forbidden (403)"
    );
    let writes = fake.writes();
    let changes: Vec<_> = writes
        .iter()
        .filter(|write| !write.starts_with("POST "))
        .collect();
    let only = [format!("PATCH {STACK}"), format!("PATCH {STACK}/status")];
    assert_eq!(
        changes,
        only.iter().collect::<Vec<_>>(),
        "the finalizer and the status"
    );
    let unknown = ("Unknown".to_owned(), "NotObserved".to_owned());
    assert_eq!(condition(&fake, "Ready"), unknown);
    reconciler.reconcile().await.unwrap_err();
    assert_eq!(fake.writes(), [""; 0], "said once");
}

#[tokio::test]
async fn a_working_stack_that_cannot_be_looked_after_any_more_does_not_go_on_saying_that_it_is_ready() {
    let (fake, mut reconciler) = working().await;
    assert_eq!(condition(&fake, "Available").0, "True");
    fake.always(
        &format!("GET {CA}"),
        500,
        status(500, "InternalError", "etcd is away"),
    );
    reconciler.reconcile().await.unwrap_err();
    assert_eq!(condition(&fake, "Available").0, "True", "one hiccup is no news");
    reconciler.reconcile().await.unwrap_err();
    for kind in ["Ready", "Available", "CertificatesReady"] {
        assert_eq!(condition(&fake, kind).0, "Unknown", "{kind}");
    }
    let said = fake.get(STACK).unwrap()["status"]["findings"].to_string();
    assert!(said.contains("etcd is away"), "{said}");
    fake.answer_again(&format!("GET {CA}"));
    reconciler.reconcile().await.unwrap();
    assert_eq!(condition(&fake, "Available").0, "True");
}

#[tokio::test]
async fn what_only_the_diagnosis_needs_keeps_nothing_from_being_put_right() {
    for path in [
        "/api/v1/nodes",
        "/api/v1/namespaces/ns/pods",
        "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    ] {
        let (fake, mut reconciler) = working().await;
        let deployment = fake.get(DEPLOYMENT).unwrap()["spec"].clone();
        fake.always(&format!("GET {path}"), 403, status(403, "Forbidden", "no right"));
        fake.remove(SERVING);
        fake.writes();
        reconciler.reconcile().await.unwrap();
        assert!(fake.get(SERVING).is_some(), "{path}");
        assert_eq!(condition(&fake, "Available").0, "True", "{path}");
        // The same by an operator that has just started and knows nothing.
        let mut restarted = reconciler_for(&fake);
        restarted.reconcile().await.unwrap();
        assert_eq!(fake.get(DEPLOYMENT).unwrap()["spec"], deployment, "{path}");
        assert_eq!(
            condition(&fake, "Degraded"),
            ("True".to_owned(), "NotObserved".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_deployment_that_cannot_be_seen_is_unknown_and_the_rest_is_kept() {
    let (fake, mut reconciler) = working().await;
    fake.always(
        &format!("GET {DEPLOYMENT}"),
        403,
        status(403, "Forbidden", "no right"),
    );
    fake.remove(SERVING);
    reconciler.reconcile().await.unwrap();
    assert!(fake.get(SERVING).is_some());
    assert_eq!(
        condition(&fake, "MetricsApiReady"),
        ("Unknown".to_owned(), "NotObserved".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn one_failed_read_is_no_news_and_two_are() {
    let (fake, mut reconciler) = working().await;
    let list = "GET /apis/metrics.k8s.io/v1/nodes";
    let away = status(503, "ServiceUnavailable", "connection lost");
    fake.once(list, 503, away.clone());
    reconciler.reconcile().await.unwrap();
    assert_eq!(condition(&fake, "Available").0, "True");
    fake.always(list, 503, away);
    reconciler.reconcile().await.unwrap();
    assert_eq!(condition(&fake, "Available").0, "False");
}
