use contract::names;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use std::time::Duration;

use super::*;
use crate::fixtures::{now, stack};
use crate::observe::NodeFacts;

fn environment() -> Environment {
    Environment::new("monitoring", "registry.test/metricsstack:1")
}

fn planned(spec: &Value, observed: &Observed) -> Result<Plan, Refusal> {
    plan(&stack(spec), None, observed, &environment(), now())
}

fn nodes(count: usize) -> Observed {
    let node = |index| NodeFacts {
        name: format!("node-{index}"),
        labels: [("kubernetes.io/os".to_owned(), "linux".to_owned())].into(),
        ..NodeFacts::default()
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
fn the_image_is_pulled_as_the_operators_unless_the_stack_says_otherwise() {
    let environment = Environment {
        image_pull_policy: ImagePullPolicy::Always,
        image_pull_secrets: vec!["registry".to_owned()],
        ..environment()
    };
    let pulled = |spec: &Value| {
        let plan = plan(&stack(spec), None, &nodes(1), &environment, now())
            .unwrap()
            .metrics_api;
        (plan.image_pull_policy, plan.image_pull_secrets)
    };
    let operators = (ImagePullPolicy::Always, vec!["registry".to_owned()]);
    assert_eq!(pulled(&json!({})), operators);
    let spec = json!({"metricsApi": {"imagePullPolicy": "Never", "imagePullSecrets": []}});
    assert_eq!(pulled(&spec), (ImagePullPolicy::Never, Vec::new()));
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
fn in_the_network_of_a_node_another_port_is_the_default_and_the_kubelets_is_refused() {
    let planned_port = |spec: Value| {
        let plan = planned(&json!({"metricsApi": spec}), &nodes(2));
        plan.map(|plan| (plan.metrics_api.port, plan.metrics_api.host_network))
            .map_err(|refusal| refusal.to_string())
    };
    assert_eq!(planned_port(json!({})), Ok((10250, false)));
    assert_eq!(planned_port(json!({"hostNetwork": true})), Ok((4443, true)));
    assert_eq!(
        planned_port(json!({"hostNetwork": true, "port": 9443})),
        Ok((9443, true))
    );
    for spec in [
        json!({"hostNetwork": true, "port": 10250}),
        json!({"port": 443}),
        json!({"port": 70_000}),
    ] {
        let refusal = planned_port(spec).unwrap_err();
        assert!(refusal.starts_with("spec.metricsApi.port: found "), "{refusal}");
    }
}

#[test]
fn a_network_policy_names_the_ports_that_are_seen_and_stays_while_none_are() {
    let mut observed = nodes(3);
    observed.nodes[0].kubelet_port = 10250;
    observed.nodes[1].kubelet_port = 10251;
    observed.nodes[2].kubelet_port = 10250;
    let policy = |spec: &Value, observed: &Observed| planned(spec, observed).unwrap().network_policy;
    let enabled = json!({"networkPolicy": "Enabled"});
    assert_eq!(policy(&enabled, &observed), NetworkPolicyPlan::Kept);
    observed.api_servers = vec![
        ("10.0.0.2:6443".parse().unwrap(), None),
        ("10.0.0.1:6443".parse().unwrap(), None),
    ];
    assert_eq!(
        policy(&enabled, &observed),
        NetworkPolicyPlan::Wanted(EgressPorts {
            kubelets: [10250, 10251].into(),
            api_servers: [6443].into(),
        })
    );
    assert_eq!(policy(&json!({}), &observed), NetworkPolicyPlan::Absent);
    let host = json!({"networkPolicy": "Enabled", "metricsApi": {"hostNetwork": true}});
    assert_eq!(policy(&host, &observed), NetworkPolicyPlan::Absent);
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
        plan.certificates.ca.as_ref().unwrap().not_after(),
        now() + jiff::SignedDuration::from_hours(8760)
    );
    assert_eq!(plan.next_check, Some(plan.certificates.leaf.renew_at()));
}

#[test]
fn a_quiet_cluster_gives_the_same_plan() {
    let first = planned(&json!({}), &nodes(2)).unwrap();
    assert_eq!(
        first.renewed,
        [
            "metrics-api-ca: there is none",
            "metrics-api-serving: there is none"
        ]
    );
    let observed = stored(&first, nodes(2));
    let second = planned(&json!({}), &observed).unwrap();
    assert_eq!(
        second,
        Plan {
            renewed: Vec::new(),
            ..first
        }
    );
}

fn stored(plan: &Plan, nodes: Observed) -> Observed {
    let secret = |name| -> Option<Secret> {
        let objects = desired::objects(plan).base;
        let object = objects.into_iter().find(|object| object.name() == name)?;
        serde_json::from_value(serde_json::to_value(object.object).unwrap()).ok()
    };
    Observed {
        ca_secret: secret(names::CA_SECRET),
        serving_secret: secret(names::SERVING_SECRET),
        ..nodes
    }
}

#[test]
fn under_a_refused_spec_the_last_good_one_holds() {
    let good = stack(&json!({"metricsApi": {"replicas": 3}, "certificates": {"leafValidity": "24h"}}));
    let before = plan(&good, None, &nodes(2), &environment(), now()).unwrap();
    let observed = stored(&before, nodes(2));
    let bad = stack(&json!({"metricsApi": {"replicas": 5, "resolution": "1s"}}));
    let kept = plan(&bad, Some(&good.spec), &observed, &environment(), now()).unwrap();
    assert_eq!(kept.problems.len(), 1);
    assert_eq!(
        Plan {
            problems: Vec::new(),
            renewed: before.renewed.clone(),
            ..kept
        },
        before
    );
}

#[test]
fn under_a_refused_spec_certificates_are_renewed_even_where_no_good_one_is_known() {
    let good = stack(&json!({"certificates": {"leafValidity": "24h", "caValidity": "8760h"}}));
    let before = plan(&good, None, &nodes(2), &environment(), now()).unwrap();
    let observed = stored(&before, nodes(2));
    let bad = stack(&json!({"certificates": {"leafValidity": "never"}}));
    let kept = plan(&bad, None, &observed, &environment(), now()).unwrap();
    assert!(
        kept.keeps_workload && kept.renewed.is_empty(),
        "{:?}",
        kept.renewed
    );
    assert_eq!(kept.certificates, before.certificates);
    let later = now() + jiff::SignedDuration::from_hours(23);
    let renewed = plan(&bad, None, &observed, &environment(), later).unwrap();
    assert_eq!(renewed.certificates.ca, before.certificates.ca);
    assert_eq!(
        renewed.certificates.leaf.not_after(),
        later + jiff::SignedDuration::from_hours(24)
    );
    let objects = desired::objects(&renewed);
    let untouched: Vec<_> = objects.untouched.iter().map(desired::Object::describe).collect();
    assert_eq!(
        untouched,
        [
            "ConfigMap monitoring/metrics-api-kubelet-ca",
            "NetworkPolicy monitoring/metrics-api",
            // Which kinds the cluster has was not seen.
            "ServiceMonitor monitoring/metrics-api",
            "PodMonitor monitoring/metricsstack-operator",
            "PrometheusRule monitoring/metrics-api",
            "ConfigMap monitoring/metrics-api-dashboard",
            "Role monitoring/metrics-api",
            "RoleBinding monitoring/metrics-api",
            "PodDisruptionBudget monitoring/metrics-api",
            "Deployment monitoring/metrics-api"
        ]
    );
    assert!(objects.absent.is_empty());
}

#[test]
fn nodes_that_are_not_seen_are_not_taken_for_none() {
    let deployment = serde_json::from_value(json!({"spec": {"selector": {}, "template": {}}})).unwrap();
    let blind = Observed {
        unseen: [(Part::Nodes, "no right".to_owned())].into(),
        ..Observed::default()
    };
    assert!(
        !planned(&json!({}), &blind).unwrap().keeps_workload,
        "nothing runs yet"
    );
    let blind = Observed { deployment, ..blind };
    assert!(planned(&json!({}), &blind).unwrap().keeps_workload);
    let known = Observed {
        nodes: nodes(2).nodes,
        ..blind
    };
    assert!(
        !planned(&json!({}), &known).unwrap().keeps_workload,
        "from before"
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
        owner: Some("\"Helm\" (app.kubernetes.io/managed-by)".to_owned()),
    }]);
    assert_eq!(registration(vec![theirs()], 1), withheld);
    assert_eq!(registration(vec![ours(), theirs()], 1), withheld);
}
