use contract::report::{ErrorClass, NodeError, NodeState, TlsState};
use serde_json::json;

use super::*;
use crate::fixtures::{self, planned, replica, two_nodes};
use crate::observe::{Conflict, Read, Replica};

fn found(spec: &serde_json::Value, observed: &Observed) -> Vec<Finding> {
    diagnose(observed, planned(spec, observed).as_ref()).findings
}

/// Reason, severity and evidence, a line each.
fn lines(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| {
            format!(
                "{:?} {}: {}",
                finding.severity,
                finding.reason.name(),
                finding.evidence
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn healthy() -> Observed {
    Observed {
        pods: vec![pod(
            "metrics-api-1",
            &json!({"conditions": [{"type": "Ready", "status": "True"}]}),
        )],
        ready_endpoints: 1,
        replicas: vec![replica(vec![
            node("a", TlsState::Verified, None),
            node("b", TlsState::Verified, None),
        ])],
        read: Read::Succeeded,
        ..two_nodes()
    }
}

fn node(name: &str, tls: TlsState, error: Option<ErrorClass>) -> NodeState {
    let error = error.map(|class| NodeError {
        class,
        message: format!("what {name} did"),
    });
    fixtures::node(name, tls, error)
}

fn pod(name: &str, status: &serde_json::Value) -> k8s_openapi::api::core::v1::Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"nodeName": "node-1", "containers": [{"name": "metrics-api", "image": "registry.test/image:1"}]},
        "status": status,
    }))
    .unwrap()
}

fn waiting(state: &serde_json::Value, last: &serde_json::Value) -> serde_json::Value {
    json!({"containerStatuses": [{
        "name": "metrics-api", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": state}, "lastState": last,
    }]})
}

#[test]
fn a_healthy_cluster_has_no_finding() {
    assert_eq!(found(&json!({}), &healthy()), []);
}

#[test]
fn self_signed_kubelets_with_verify_are_a_failure_that_names_the_ways_out() {
    let nodes = ["a", "b"].map(|name| node(name, TlsState::Refused, Some(ErrorClass::TlsUnknownAuthority)));
    let observed = Observed {
        replicas: vec![replica(nodes.to_vec())],
        read: Read::NotTried,
        ..healthy()
    };
    let findings = found(&json!({"kubelet": {"tls": {"mode": "Verify"}}}), &observed);
    assert_eq!(
        lines(&findings),
        "Failure KubeletTlsUnknownAuthority: 2 of 2 kubelets fail with TlsUnknownAuthority: a, b"
    );
    let finding = &findings[0];
    assert!(
        finding
            .message()
            .contains("x509: certificate signed by unknown authority"),
        "{}",
        finding.message()
    );
    for way in [
        "Auto",
        "serverTLSBootstrap",
        "kubectl certificate approve",
        "caBundle",
    ] {
        assert!(finding.remedy().contains(way), "{way}");
    }
}

#[test]
fn pinned_kubelets_are_counted_and_the_way_out_is_named() {
    let mut observed = healthy();
    observed.replicas = vec![replica(vec![
        node("a", TlsState::Pinned, None),
        node("b", TlsState::Verified, None),
    ])];
    let findings = found(&json!({}), &observed);
    assert_eq!(
        lines(&findings),
        "Note KubeletsPinned: 1 of 2 kubelets are trusted by a pinned key: a"
    );
    assert!(findings[0].remedy().contains("serverTLSBootstrap"));
}

#[test]
fn kubelets_that_fail_are_grouped_by_class_with_three_examples() {
    let timeouts = ["e", "d", "c", "b"].map(|name| node(name, TlsState::Verified, Some(ErrorClass::Timeout)));
    let mut nodes = timeouts.to_vec();
    nodes.push(node("a", TlsState::Verified, Some(ErrorClass::Unauthorized)));
    nodes.push(node("z", TlsState::Verified, None));
    let observed = Observed {
        replicas: vec![replica(nodes)],
        ..healthy()
    };
    insta::assert_snapshot!(lines(&found(&json!({}), &observed)), @r"
    Warning KubeletTimeout: 4 of 6 kubelets fail with Timeout: b, c, d and 1 more
    Warning KubeletUnauthorized: 1 of 6 kubelets fail with Unauthorized: a
    ");
    let kubelets = survey(&observed, None);
    assert_eq!((kubelets.total, kubelets.answering), (6, 1));
    assert_eq!(
        kubelets.failing[0].examples(),
        ["b: what b did", "c: what c did", "d: what d did"]
    );
}

#[test]
fn one_missed_answer_is_no_failure() {
    let late = |success: &str| {
        let mut state = node("a", TlsState::Verified, Some(ErrorClass::Timeout));
        state.last_success = Some(success.to_owned());
        survey(
            &Observed {
                replicas: vec![replica(vec![state])],
                ..healthy()
            },
            None,
        )
    };
    assert_eq!(late("2026-11-24T04:59:45Z").answering, 1);
    assert_eq!(late("2026-11-24T04:59:15Z").answering, 0);
}

#[test]
fn a_node_counts_once_whichever_replica_fails() {
    let good = replica(vec![node("a", TlsState::Pinned, None)]);
    let bad = replica(vec![node("a", TlsState::Unknown, Some(ErrorClass::Unreachable))]);
    let pending = replica(vec![NodeState {
        last_success: None,
        ..node("a", TlsState::Unknown, None)
    }]);
    let count = |replicas: &[&Replica]| {
        let replicas = replicas.iter().map(|replica| (*replica).clone()).collect();
        let kubelets = survey(
            &Observed {
                replicas,
                ..healthy()
            },
            None,
        );
        (
            kubelets.total,
            kubelets.answering,
            kubelets.failing.len(),
            kubelets.pinned.len(),
        )
    };
    assert_eq!(count(&[&good, &good]), (1, 1, 0, 1));
    assert_eq!(count(&[&good, &bad]), (1, 0, 1, 1));
    assert_eq!(count(&[&bad, &good]), (1, 0, 1, 1));
    assert_eq!(count(&[&good, &pending]), (1, 0, 0, 1));
    assert_eq!(count(&[]), (2, 0, 0, 0), "as many as there are nodes");
}

#[test]
fn a_replica_that_starts_does_not_count_beside_one_that_answers() {
    let young = Replica {
        pod: "metrics-api-2".to_owned(),
        ..replica(vec![NodeState {
            last_success: None,
            ..node("a", TlsState::Unknown, None)
        }])
    };
    let mut observed = healthy();
    observed.pods.push(pod("metrics-api-2", &json!({})));
    observed.replicas.push(young);
    assert_eq!(survey(&observed, None).answering, 2);
    // As long as none answers, each may tell why.
    observed.pods.remove(0);
    assert_eq!(survey(&observed, None).answering, 1);
}

#[test]
fn a_foreign_registration_is_named_with_its_service() {
    let foreign = serde_json::from_value(json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"app.kubernetes.io/managed-by": "Helm"}},
        "spec": {
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "kube-system", "name": "metrics-server"},
        },
    }))
    .unwrap();
    let observed = Observed {
        api_services: vec![foreign],
        read: Read::NotTried,
        ..healthy()
    };
    assert_eq!(
        lines(&found(&json!({}), &observed)),
        "Failure ForeignApiService: APIService v1beta1.metrics.k8s.io belongs to \"Helm\" (app.kubernetes.io/managed-by) and points at the \
         Service kube-system/metrics-server"
    );
}

#[test]
fn a_missing_front_proxy_is_named() {
    for authentication in [
        None,
        serde_json::from_value(json!({"data": {"client-ca-file": "x"}})).unwrap(),
    ] {
        let observed = Observed {
            authentication,
            ..healthy()
        };
        assert_eq!(
            lines(&found(&json!({}), &observed)),
            "Failure AggregationDisabled: ConfigMap kube-system/extension-apiserver-authentication has no \
             requestheader-client-ca-file"
        );
    }
}

#[test]
fn an_authority_of_clients_and_front_proxies_is_named() {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&key).unwrap().pem()
    };
    let (one, two) = (authority("one"), authority("two"));
    let bundle = format!("{two}{one}");
    for (clients, proxies, names, expected) in [
        (&one, &two, "[]", ""),
        (&one, &"-----BEGIN CERTIFICATE-----".to_owned(), "[]", ""),
        (
            &one,
            &bundle,
            "[]",
            "Failure FrontProxyAuthorityShared: ConfigMap kube-system/extension-apiserver-authentication has the key of \
             \"CN=one\" in both client-ca-file and requestheader-client-ca-file: any client certificate may say that it \
             speaks for anybody, for requestheader-allowed-names is empty",
        ),
        (
            &bundle,
            &one,
            "[\"front-proxy-client\"]",
            "Warning FrontProxyAuthorityShared: ConfigMap kube-system/extension-apiserver-authentication has the key of \
             \"CN=one\" in both client-ca-file and requestheader-client-ca-file: only requestheader-allowed-names tells a \
             front proxy from other clients",
        ),
    ] {
        let data = json!({"client-ca-file": clients, "requestheader-client-ca-file": proxies,
            "requestheader-allowed-names": names});
        let observed = Observed {
            authentication: serde_json::from_value(json!({"data": data})).unwrap(),
            ..healthy()
        };
        assert_eq!(lines(&found(&json!({}), &observed)), expected);
    }
}

#[test]
fn pods_that_do_not_run_are_named_with_the_cause() {
    let last = json!({"terminated": {
        "exitCode": 1, "reason": "Error", "message": "started\n--metric-resolution: found 1s\n",
    }});
    let pods = vec![
        pod(
            "p1",
            &waiting(
                &json!({"reason": "ImagePullBackOff", "message": "changes"}),
                &json!({}),
            ),
        ),
        pod("p2", &waiting(&json!({"reason": "CrashLoopBackOff"}), &last)),
        pod(
            "p3",
            &waiting(
                &json!({"reason": "CreateContainerConfigError", "message": "secret gone"}),
                &json!({}),
            ),
        ),
        pod(
            "p4",
            &json!({"conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"},
            ]}),
        ),
        pod("p5", &waiting(&json!({"reason": "ErrImagePull"}), &json!({}))),
        pod(
            "p6",
            &waiting(&json!({"reason": "ContainerCreating"}), &json!({})),
        ),
    ];
    insta::assert_snapshot!(lines(&found(&json!({}), &Observed { pods, ..healthy() })));
}

#[test]
fn a_rollout_that_stands_still_is_named_and_matters_less_while_a_replica_answers() {
    let deployment = |ready: i32| {
        serde_json::from_value(json!({
            "spec": {"selector": {}, "template": {}},
            "status": {"readyReplicas": ready, "conditions": [
                {"type": "Progressing", "status": "False", "message": "it timed out"},
            ]},
        }))
        .unwrap()
    };
    let found = |ready| {
        lines(&found(
            &json!({}),
            &Observed {
                deployment: deployment(ready),
                ..healthy()
            },
        ))
    };
    assert_eq!(found(0), "Failure RolloutStuck: it timed out");
    assert_eq!(found(1), "Warning RolloutStuck: it timed out");
}

#[test]
fn what_could_not_be_done_comes_first() {
    let observed = Observed {
        conflicts: vec![Conflict {
            object: "Service ns/metrics-api".to_owned(),
        }],
        apply_error: Some("Deployment ns/metrics-api: forbidden".to_owned()),
        read: Read::Failed {
            version: "v1".to_owned(),
            reason: "503 Service Unavailable".to_owned(),
        },
        replicas: vec![Replica {
            pod: "metrics-api-1".to_owned(),
            report: Err("403 Forbidden".to_owned()),
        }],
        ..healthy()
    };
    insta::assert_snapshot!(lines(&found(
        &json!({"metricsApi": {"resolution": "1s"}}),
        &observed
    )));
}

#[test]
fn without_a_ready_replica_a_failed_read_is_no_finding_of_its_own() {
    let read = Read::Failed {
        version: "v1".to_owned(),
        reason: "503".to_owned(),
    };
    let observed = Observed {
        read,
        ready_endpoints: 0,
        ..healthy()
    };
    assert_eq!(found(&json!({}), &observed), []);
}

#[test]
fn a_replica_that_is_not_ready_need_not_answer() {
    let observed = Observed {
        pods: vec![pod("metrics-api-1", &json!({}))],
        replicas: vec![Replica {
            pod: "metrics-api-1".to_owned(),
            report: Err("connection refused".to_owned()),
        }],
        ..healthy()
    };
    assert_eq!(found(&json!({}), &observed), []);
}

#[test]
fn an_insecure_mode_is_said() {
    let findings = found(&json!({"kubelet": {"tls": {"mode": "Insecure"}}}), &healthy());
    assert_eq!(
        lines(&findings),
        "Note KubeletsNotVerified: 2 kubelets are believed unseen"
    );
}

#[test]
fn kubelets_that_wait_for_approval_are_named_unless_the_operator_approves() {
    let waiting = |class| Observed {
        replicas: vec![replica(vec![node("a", TlsState::Refused, Some(class))])],
        waiting_kubelets: ["a".to_owned()].into(),
        ..healthy()
    };
    let names = |spec, observed: &Observed| -> Vec<_> {
        let found = found(&spec, observed);
        found.iter().map(|finding| finding.reason.name()).collect()
    };
    let pending = "KubeletCertificatesPending".to_owned();
    let handshake = waiting(ErrorClass::TlsHandshake);
    assert!(names(json!({}), &handshake).contains(&pending));
    let approving = json!({"kubelet": {"approveServingCertificates": true}});
    assert!(!names(approving, &handshake).contains(&pending));
    // Somebody's certificate waits, but what fails has another cause.
    assert!(!names(json!({}), &waiting(ErrorClass::Timeout)).contains(&pending));
}

#[test]
fn monitoring_that_cannot_be_written_is_a_warning() {
    let observed = Observed {
        monitoring_errors: vec!["PrometheusRule ns/metrics-api: failed calling webhook (500)".to_owned()],
        ..healthy()
    };
    assert_eq!(
        lines(&found(&json!({}), &observed)),
        "Warning MonitoringFailed: PrometheusRule ns/metrics-api: failed calling webhook (500)"
    );
}
