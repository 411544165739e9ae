use contract::names;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use std::time::Duration;

use super::*;
use crate::observe::NodeFacts;

fn environment() -> Environment {
    Environment {
        namespace: "monitoring".to_owned(),
        image: "registry.test/metricsstack:1".to_owned(),
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn stack(spec: &Value) -> MetricsStack {
    serde_json::from_value(json!({
        "apiVersion": "metricsstack.dev/v1alpha1",
        "kind": "MetricsStack",
        "metadata": {"name": "default"},
        "spec": spec,
    }))
    .unwrap()
}

fn planned(spec: &Value, observed: &Observed) -> Result<Plan, Refusal> {
    plan(&stack(spec), observed, &environment(), now())
}

fn nodes(count: usize) -> Observed {
    let node = |index| NodeFacts {
        name: format!("node-{index}"),
        labels: [("kubernetes.io/os".to_owned(), "linux".to_owned())].into(),
        taints: Vec::new(),
    };
    Observed {
        nodes: (0..count).map(node).collect(),
        ..Observed::default()
    }
}

#[test]
fn replicas_follow_the_nodes_that_can_run_them() {
    let cases = [
        (json!({}), 0, 2, Placement::PreferApart),
        (json!({}), 1, 1, Placement::PreferApart),
        (json!({}), 2, 2, Placement::Apart),
        (json!({}), 50, 2, Placement::Apart),
        (
            json!({"metricsApi": {"replicas": 3}}),
            2,
            3,
            Placement::PreferApart,
        ),
        (
            json!({"metricsApi": {"replicas": 1}}),
            2,
            1,
            Placement::PreferApart,
        ),
        (
            json!({"metricsApi": {"nodeSelector": {"disk": "fast"}}}),
            2,
            2,
            Placement::PreferApart,
        ),
    ];
    for (spec, count, replicas, placement) in cases {
        let plan = planned(&spec, &nodes(count)).unwrap().metrics_api;
        assert_eq!(
            (plan.replicas, plan.placement),
            (replicas, placement),
            "{spec} on {count} nodes"
        );
    }
}

#[test]
fn windows_nodes_do_not_count() {
    let mut observed = nodes(2);
    observed.nodes[1]
        .labels
        .insert("kubernetes.io/os".to_owned(), "windows".to_owned());
    assert_eq!(planned(&json!({}), &observed).unwrap().metrics_api.replicas, 1);
}

#[test]
fn every_fault_of_a_spec_is_named_at_once() {
    let spec = json!({
        "metricsApi": {"resolution": "1s"},
        "kubelet": {"nodeSelector": {"pool": "a,b"}, "tls": {"caBundle": {"inline": "garbage"}}},
        "certificates": {"caValidity": "never", "leafValidity": "-1h"},
    });
    let refusal = planned(&spec, &nodes(1)).unwrap_err();
    insta::assert_snapshot!(refusal.to_string().replace(". ", ".\n"));
}

#[test]
fn go_durations_are_taken() {
    let spec = json!({
        "metricsApi": {"resolution": "1m30s"},
        "certificates": {"caValidity": "8760h", "leafValidity": "1h0m0s"},
    });
    let plan = planned(&spec, &nodes(1)).unwrap();
    assert_eq!(plan.metrics_api.resolution, Duration::from_secs(90));
    assert_eq!(
        plan.certificates.leaf.not_after(),
        now() + jiff::SignedDuration::from_hours(1)
    );
    assert_eq!(
        plan.certificates.ca.not_after(),
        now() + jiff::SignedDuration::from_hours(8760)
    );
    assert_eq!(plan.next_check, plan.certificates.leaf.renew_at());
}

#[test]
fn a_quiet_cluster_gives_the_same_plan() {
    let first = planned(&json!({}), &nodes(2)).unwrap();
    assert_eq!(
        first.renewed,
        [
            "metrics-api-ca: there is none",
            "metrics-api-serving: it does not verify: its authority is replaced"
        ]
    );
    let secret = |name| -> Option<Secret> {
        let objects = desired::objects(&first).base;
        let object = objects.into_iter().find(|object| object.name() == name)?;
        serde_json::from_value(serde_json::to_value(object.object).unwrap()).ok()
    };
    let observed = Observed {
        ca_secret: secret(names::CA_SECRET),
        serving_secret: secret(names::SERVING_SECRET),
        ..nodes(2)
    };
    let second = planned(&json!({}), &observed).unwrap();
    assert_eq!(
        second,
        Plan {
            renewed: Vec::new(),
            ..first
        }
    );
}

fn api_service(version: &str, managed_by: &str) -> APIService {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{version}.metrics.k8s.io"), "labels": {names::MANAGED_BY_LABEL: managed_by}},
        "spec": {
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "kube-system", "name": "metrics-server"},
        },
    }))
    .unwrap()
}

#[test]
fn the_registration_waits_for_an_endpoint_and_yields_to_others() {
    let registration = |api_services: Vec<APIService>, ready_endpoints| {
        planned(
            &json!({}),
            &Observed {
                ready_endpoints,
                api_services,
                ..nodes(2)
            },
        )
        .unwrap()
        .registration
    };
    let ours = || api_service("v1", names::MANAGED_BY);
    let theirs = || api_service("v1beta1", "Helm");
    assert_eq!(registration(vec![], 0), Registration::AwaitEndpoint);
    assert_eq!(registration(vec![], 1), Registration::Register);
    assert_eq!(registration(vec![ours()], 0), Registration::Register);
    let withheld = Registration::Withheld(vec![ForeignApiService {
        name: "v1beta1.metrics.k8s.io".to_owned(),
        service: "kube-system/metrics-server".to_owned(),
    }]);
    assert_eq!(registration(vec![theirs()], 1), withheld);
    assert_eq!(registration(vec![ours(), theirs()], 1), withheld);
}
