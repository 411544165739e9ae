mod over_time;

use contract::report::{ErrorClass, NodeError, NodeState, TlsState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::*;
use crate::contest::Contest;
use crate::fixtures::{self, planned, replica, two_nodes};
use crate::observe::{Part, Read};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn node(name: &str, tls: TlsState, error: Option<&str>) -> NodeState {
    let error = error.map(|message| NodeError {
        class: ErrorClass::Timeout,
        message: message.to_owned(),
    });
    fixtures::node(name, tls, error)
}

fn working() -> Observed {
    let api_service = |version: &str| {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("{version}.metrics.k8s.io"),
                "labels": {"app.kubernetes.io/managed-by": "metricsstack-operator"},
            },
            "spec": {
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"namespace": "ns", "name": "metrics-api"},
            },
            "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Passed"}]},
        }))
        .unwrap()
    };
    Observed {
        deployment: serde_json::from_value(json!({
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2},
        }))
        .unwrap(),
        ready_endpoints: 2,
        api_services: vec![api_service("v1beta1"), api_service("v1")],
        replicas: vec![replica(vec![
            node("a", TlsState::Pinned, None),
            node("b", TlsState::Pinned, None),
        ])],
        read: Read::Succeeded,
        ..two_nodes()
    }
}

fn status(
    previous: Option<&MetricsStackStatus>,
    generation: Option<i64>,
    observed: &Observed,
    outcome: Result<&Plan, &Refusal>,
    now: Timestamp,
) -> MetricsStackStatus {
    let diagnosis = diagnose::diagnose(observed, outcome);
    super::status(previous, generation, observed, outcome, &diagnosis, now)
}

fn of(spec: &serde_json::Value, observed: &Observed) -> MetricsStackStatus {
    status(None, Some(7), observed, planned(spec, observed).as_ref(), at(0))
}

/// Type, status and reason of each condition.
fn conditions(status: &MetricsStackStatus) -> Vec<String> {
    status
        .conditions
        .iter()
        .map(|condition| format!("{}={} {}", condition.type_, condition.status, condition.reason))
        .collect()
}

fn ready(status: &MetricsStackStatus) -> &Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .unwrap()
}

#[test]
fn a_working_stack() {
    let mut status = of(&json!({}), &working());
    for certificate in &mut status.certificates {
        // A little earlier for each certificate.
        assert!(certificate.renew_at.take().unwrap().0 < certificate.not_after.0);
    }
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn a_stack_that_was_just_made() {
    let observed = Observed {
        authentication: working().authentication,
        nodes: working().nodes,
        ..Observed::default()
    };
    insta::assert_yaml_snapshot!(conditions(&of(&json!({}), &observed)));
}

#[test]
fn what_cannot_be_seen_is_unknown_and_the_stack_is_ready_as_long_as_the_api_answers() {
    for (part, kind) in [
        (Part::FrontProxy, Some("AggregationReady")),
        (Part::Deployment, Some("MetricsApiReady")),
        (Part::Pods, Some("KubeletsReachable")),
        (Part::Nodes, None),
        (Part::Endpoints, None),
        (Part::KubeletAuthorities, None),
    ] {
        let mut observed = working();
        match part {
            Part::FrontProxy => observed.authentication = None,
            Part::Deployment => observed.deployment = None,
            Part::Pods => observed.replicas = Vec::new(),
            Part::Nodes | Part::Endpoints | Part::KubeletAuthorities => {}
        }
        observed.unseen.insert(part, "no right (403)".to_owned());
        let status = of(&json!({}), &observed);
        let unknown: Vec<_> = status
            .conditions
            .iter()
            .filter(|condition| condition.status == "Unknown")
            .map(|condition| condition.type_.as_str())
            .collect();
        assert_eq!(unknown, kind.into_iter().collect::<Vec<_>>(), "{part:?}");
        assert_eq!(ready(&status).status, "True", "{part:?}");
        assert_eq!(status.findings[0].reason, "NotObserved", "{part:?}");
        assert!(status.findings[0].message.contains("no right (403)"));
        observed.read = Read::NotTried;
        let status = of(&json!({}), &observed);
        assert_ne!(ready(&status).status, "True", "{part:?}");
    }
}

#[test]
fn a_new_generation_is_not_acted_on_before_its_rollout_is_done() {
    let before = of(&json!({}), &working());
    let rolled = |deployment: serde_json::Value| {
        let observed = Observed {
            deployment: serde_json::from_value(deployment).unwrap(),
            ..working()
        };
        let plan = planned(&json!({}), &observed);
        let status = status(Some(&before), Some(8), &observed, plan.as_ref(), at(60));
        let of_ready = ready(&status).observed_generation;
        assert_eq!(
            (ready(&status).status.as_str(), of_ready),
            ("True", status.observed_generation)
        );
        let reason = status.conditions[3].reason.clone();
        (status.observed_generation.unwrap(), reason)
    };
    let deployment = |generation: i64, status: serde_json::Value| {
        json!({"metadata": {"generation": generation},
            "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status})
    };
    let done = json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2});
    assert_eq!(
        rolled(deployment(3, done.clone())),
        (8, "ReplicasReady".to_owned())
    );
    let rolling = (7, "RollingOut".to_owned());
    assert_eq!(rolled(deployment(4, done)), rolling, "not seen yet");
    let one = json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 2});
    assert_eq!(rolled(deployment(3, one.clone())), rolling);
    let surge = json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "readyReplicas": 2});
    assert_eq!(rolled(deployment(3, surge)), rolling, "an old one is still there");
    // One that stands still is found: there is nothing to wait for.
    let mut stuck = one;
    stuck["conditions"] = json!([{"type": "Progressing", "status": "False"}]);
    assert_eq!(rolled(deployment(3, stuck)).0, 8);
}

#[test]
fn one_sick_node_degrades_and_no_more() {
    let nodes = vec![
        node("a", TlsState::Verified, None),
        node("b", TlsState::Verified, Some("slow")),
    ];
    let status = of(
        &json!({}),
        &Observed {
            replicas: vec![replica(nodes)],
            ..working()
        },
    );
    insta::assert_yaml_snapshot!(conditions(&status));
    assert_eq!(status.kubelets.unwrap().summary, "1/2");
}

#[test]
fn no_kubelet_that_answers_is_not_ready() {
    let nodes = ["a", "b"]
        .map(|name| node(name, TlsState::Verified, Some("slow")))
        .to_vec();
    let status = of(
        &json!({}),
        &Observed {
            replicas: vec![replica(nodes)],
            ..working()
        },
    );
    assert_eq!(
        (ready(&status).status.as_str(), ready(&status).reason.as_str()),
        ("False", "KubeletTimeout")
    );
    assert!(
        ready(&status).message.contains("firewalls"),
        "{}",
        ready(&status).message
    );
}

#[test]
fn what_keeps_most_kubelets_from_answering_is_why_no_replica_is_ready() {
    let failing = |name: &str, class| {
        let error = NodeError {
            class,
            message: "no".to_owned(),
        };
        fixtures::node(name, TlsState::Refused, Some(error))
    };
    let mut observed = working();
    let status = observed.deployment.as_mut().unwrap().status.as_mut().unwrap();
    status.ready_replicas = None;
    observed.ready_endpoints = 0;
    observed.replicas = vec![replica(vec![
        failing("a", ErrorClass::NoAddress),
        failing("b", ErrorClass::TlsUnknownAuthority),
        failing("c", ErrorClass::TlsUnknownAuthority),
    ])];
    let status = of(&json!({}), &observed);
    for kind in ["Ready", "MetricsApiReady"] {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind);
        let condition = condition.unwrap();
        assert_eq!(condition.reason, "KubeletTlsUnknownAuthority", "{kind}");
        let message = &condition.message;
        assert!(
            message.contains("2 of 3 kubelets") && message.contains("serverTLSBootstrap"),
            "{message}"
        );
    }
}

#[test]
fn a_refused_spec_is_said_while_what_ran_before_is_still_judged() {
    let before = of(&json!({}), &working());
    let spec = json!({"kubelet": {"tls": {"caBundle": {"inline": "garbage"}}}});
    let refusal = planned(&spec, &working());
    let status = status(Some(&before), Some(8), &working(), refusal.as_ref(), at(60));
    insta::assert_yaml_snapshot!(conditions(&status));
    assert!(
        ready(&status)
            .message
            .contains("spec.kubelet.tls.caBundle.inline: found no PEM certificate")
    );
    let expiry = |status: &MetricsStackStatus| {
        let of = status.certificates.iter();
        of.map(|certificate| (certificate.name.clone(), certificate.not_after.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(expiry(&status), expiry(&before));
    assert_eq!(status.observed_generation, Some(8));
}

#[test]
fn a_foreign_registration_is_not_available_and_listed() {
    let mut observed = Observed {
        read: Read::NotTried,
        ..working()
    };
    observed.api_services = vec![
        serde_json::from_value(json!({
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"namespace": "kube-system", "name": "metrics-server"},
            },
        }))
        .unwrap(),
    ];
    let status = of(&json!({}), &observed);
    let available = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Available")
        .unwrap();
    assert_eq!(available.reason, "ForeignApiService");
    assert_eq!(
        available.message,
        "v1beta1.metrics.k8s.io points at kube-system/metrics-server"
    );
    assert!(!status.api_services[0].managed);
    assert!(ready(&status).message.contains("kube-system/metrics-server"));
}

#[test]
fn a_certificate_that_is_not_stored_is_not_told_of() {
    let plan = planned(&json!({}), &working());
    let told = |unstored: bool| {
        let observed = Observed {
            contests: vec![Contest {
                object: "Secret ns/metrics-api-serving".to_owned(),
                by: "the field manager \"meddler\" (Update)".to_owned(),
            }],
            certificates_unstored: unstored,
            ..working()
        };
        let status = status(None, Some(1), &observed, plan.as_ref(), at(0));
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "CertificatesReady");
        (status.certificates.len(), ready.unwrap().reason.clone())
    };
    assert_eq!(told(true), (0, "ObjectContested".to_owned()));
    assert_eq!(told(false), (2, "Valid".to_owned()));
}

#[test]
fn how_many_kubelets_are_pinned_is_said_with_the_way_out() {
    let observed = Observed {
        replicas: vec![replica(vec![
            node("a", TlsState::Pinned, None),
            node("b", TlsState::Verified, None),
        ])],
        ..working()
    };
    let status = of(&json!({}), &observed);
    let reachable = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "KubeletsReachable")
        .unwrap();
    let expected = "2 of 2 kubelets answer; 1 of them are on weaker trust";
    assert!(
        reachable.message.starts_with(expected) && reachable.message.contains("serverTLSBootstrap: true"),
        "{}",
        reachable.message
    );
}

#[test]
fn long_texts_are_cut() {
    let observed = Observed {
        apply_error: Some("ü".repeat(50_000)),
        ..working()
    };
    let status = of(&json!({}), &observed);
    let longest = status
        .conditions
        .iter()
        .map(|condition| condition.message.len())
        .max()
        .unwrap();
    assert!(longest < 32_768, "{longest}");
    assert!(status.findings[0].message.ends_with('…'));
}
