//! A spec that cannot be, and what kube-apiserver refuses.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;

#[tokio::test]
async fn a_refused_spec_leaves_what_runs_and_says_why() {
    let (fake, mut reconciler) = cluster(&json!({}));
    endpoint_is_ready(&fake);
    reconciler.reconcile().await.unwrap();
    let mut stack = fake.get(STACK).unwrap();
    stack["spec"] = json!({"kubelet": {"tls": {"caBundle": {"inline": "no certificate"}}}});
    fake.put(STACK, stack);
    fake.writes();
    reconciler.reconcile().await.unwrap();
    let writes = fake.writes();
    assert!(
        writes
            .iter()
            .all(|write| write.starts_with("POST ") || write == &format!("PATCH {STACK}/status")),
        "{writes:?}"
    );
    assert_eq!(
        condition(&fake, "Ready"),
        ("False".to_owned(), "InvalidSpec".to_owned())
    );
    assert_eq!(
        condition(&fake, "Available").0,
        "True",
        "what ran before still answers"
    );
    let status = fake.get(STACK).unwrap()["status"].to_string();
    assert!(status.contains("spec.kubelet.tls.caBundle"), "{status}");
}

#[tokio::test]
async fn authorities_come_from_a_config_map_as_long_as_it_holds_any() {
    const THEIRS: &str = "/api/v1/namespaces/ns/configmaps/cas";
    const OURS: &str = "/api/v1/namespaces/ns/configmaps/metrics-api-kubelet-ca";
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        made.cert.pem()
    };
    let (fake, mut reconciler) = working().await;
    let put = |data: Value| fake.put(THEIRS, json!({"metadata": {"name": "cas"}, "data": data}));
    let (first, second) = (certificate(), certificate());
    put(json!({"ca.crt": first}));
    let mut stack = fake.get(STACK).unwrap();
    stack["spec"] = json!({"kubelet": {"tls": {"caBundle": {"configMap": {"name": "cas"}}}}});
    fake.put(STACK, stack);
    reconciler.reconcile().await.unwrap();
    let given = || fake.get(OURS).unwrap()["data"]["ca.crt"].clone();
    let mounted = || fake.get(DEPLOYMENT).unwrap()["spec"]["template"]["spec"]["volumes"].clone();
    assert_eq!(given(), json!(first));
    let volumes = mounted();
    assert!(
        volumes.to_string().contains("metrics-api-kubelet-ca"),
        "{volumes}"
    );

    put(json!({"ca.crt": second}));
    reconciler.reconcile().await.unwrap();
    assert_eq!(given(), json!(second));

    put(json!({"ca.crt": "garbage"}));
    for found in [
        "found no PEM certificate in ca.crt",
        "there is no ConfigMap ns/cas",
    ] {
        reconciler.reconcile().await.unwrap();
        assert_eq!((given(), mounted()), (json!(second), volumes.clone()));
        let status = fake.get(STACK).unwrap()["status"]["findings"].to_string();
        assert!(
            status.contains("KubeletAuthoritiesUnfit") && status.contains(found),
            "{found:?} is not in {status}"
        );
        fake.remove(THEIRS);
    }
}

#[tokio::test]
async fn what_nobody_could_be_told_is_not_measured() {
    let (fake, mut reconciler) = working().await;
    let measured = |reconciler: &Reconciler| {
        let mut registry = Registry::default();
        reconciler.metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.contains("metricsstack_operator_condition{")
    };
    assert!(measured(&reconciler));
    for call in [format!("PATCH {STACK}/status"), format!("GET {STACK}")] {
        let mut stack = fake.get(STACK).unwrap();
        stack["status"] = json!({});
        fake.put(STACK, stack);
        fake.once(&call, 403, crate::fake::status(403, "Forbidden", "no right"));
        assert!(reconciler.reconcile().await.is_err(), "{call}");
        assert!(!measured(&reconciler), "{call}");
        reconciler.reconcile().await.unwrap();
        assert!(measured(&reconciler));
    }
}

#[tokio::test]
async fn without_authorities_to_keep_metrics_api_stays_as_it_is() {
    let (fake, mut reconciler) = working().await;
    let before = fake.get(DEPLOYMENT).unwrap()["spec"].clone();
    let mut stack = fake.get(STACK).unwrap();
    stack["spec"] = json!({"metricsApi": {"replicas": 1},
        "kubelet": {"tls": {"caBundle": {"configMap": {"name": "cas"}}}}});
    fake.put(STACK, stack);
    // One that cannot be read, and one that is not there.
    let list = "GET /api/v1/namespaces/ns/configmaps";
    fake.once(list, 500, crate::fake::status(500, "InternalError", "no"));
    for finding in ["NotObserved", "KubeletAuthoritiesUnfit"] {
        reconciler.reconcile().await.unwrap();
        assert_eq!(fake.get(DEPLOYMENT).unwrap()["spec"], before);
        let findings = fake.get(STACK).unwrap()["status"]["findings"].to_string();
        assert!(findings.contains(finding), "{finding} is not in {findings}");
    }
}

#[tokio::test]
async fn under_a_refused_spec_what_runs_is_kept_and_renewed() {
    for restarts in [false, true] {
        let (fake, mut reconciler) = working().await;
        let mut stack = fake.get(STACK).unwrap();
        stack["spec"] =
            json!({"certificates": {"leafValidity": "never"}, "kubelet": {"tls": {"mode": "Verify"}}});
        fake.put(STACK, stack);
        let registration = format!("{APISERVICES}/v1.metrics.k8s.io");
        let (ca, deployment) = (fake.get(CA).unwrap(), fake.get(DEPLOYMENT).unwrap());
        let bundle = fake.get(&registration).unwrap()["spec"]["caBundle"].clone();
        let mut spoilt = fake.get(&registration).unwrap();
        spoilt["spec"]["caBundle"] = json!("eA==");
        fake.put(&registration, spoilt);
        fake.remove(SERVING);
        if restarts {
            reconciler = reconciler_for(&fake);
        } else {
            // What is only known from the spec is known as long as the process runs.
            fake.remove(DEPLOYMENT);
        }
        reconciler.reconcile().await.unwrap();
        assert_eq!(fake.get(CA).unwrap()["data"], ca["data"]);
        assert!(fake.get(SERVING).is_some());
        assert_eq!(fake.get(&registration).unwrap()["spec"]["caBundle"], bundle);
        assert_eq!(fake.get(DEPLOYMENT).unwrap()["spec"], deployment["spec"]);
        assert_eq!(
            condition(&fake, "Ready"),
            ("False".to_owned(), "InvalidSpec".to_owned())
        );
        assert_eq!(condition(&fake, "CertificatesReady").0, "True");
    }
}

#[tokio::test]
async fn a_refused_spec_makes_nothing_where_nothing_ran() {
    let (fake, mut reconciler) = cluster(&json!({"metricsApi": {"resolution": "1s"}}));
    reconciler.reconcile().await.unwrap();
    assert!(fake.get(CA).is_none());
    assert_eq!(condition(&fake, "CertificatesReady").0, "Unknown");
    let status = fake.get(STACK).unwrap()["status"].to_string();
    assert!(status.contains("spec.metricsApi.resolution"), "{status}");
}

#[tokio::test]
async fn what_the_server_refuses_becomes_a_finding_with_field_and_message() {
    let (fake, mut reconciler) = cluster(&json!({}));
    let message = "Deployment.apps \"metrics-api\" is invalid: spec.template.spec.containers[0].resources.requests: \
                   Invalid value: \"2\": must be less than or equal to cpu limit of 1";
    fake.always(
        "PATCH /apis/apps/v1/namespaces/ns/deployments/metrics-api",
        422,
        status(422, "Invalid", message),
    );
    reconciler.reconcile().await.unwrap();
    assert_eq!(condition(&fake, "Ready").0, "False");
    let findings = fake.get(STACK).unwrap()["status"]["findings"].to_string();
    assert!(
        findings.contains("resources.requests") && findings.contains("less than or equal"),
        "{findings}"
    );
}
