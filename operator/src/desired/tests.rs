use serde_json::{Value, json};

use super::*;
use crate::fixtures::{now, stack};
use crate::monitoring::MonitoringKind;
use crate::observe::{NodeFacts, Observed};
use crate::plan::{self, Environment};

pub(super) fn planned(spec: &Value, observed: &Observed) -> Plan {
    let environment = Environment::new("monitoring", "registry.test/metricsstack:1");
    plan::plan(&stack(spec), None, observed, &environment, now()).unwrap()
}

pub(super) fn two_nodes() -> Observed {
    let node = |name: &str| NodeFacts {
        name: name.to_owned(),
        labels: [("kubernetes.io/os".to_owned(), "linux".to_owned())].into(),
        kubelet_port: 10250,
        ..NodeFacts::default()
    };
    Observed {
        nodes: vec![node("a"), node("b")],
        ready_endpoints: 1,
        api_servers: vec![("10.0.0.1:6443".parse().unwrap(), None)],
        monitoring_kinds: Some(MonitoringKind::ALL.into()),
        ..Observed::default()
    }
}

/// Everything that can be set, with values that YAML 1.1 readers take for something else when unquoted.
pub(super) fn everything() -> Value {
    let bundle = rcgen::generate_simple_self_signed(vec!["kubelets".to_owned()])
        .unwrap()
        .cert
        .pem();
    json!({
        "metricsApi": {
            "image": "other.test/metrics-api@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "imagePullPolicy": "Always",
            "imagePullSecrets": [{"name": "pull"}],
            "replicas": 3,
            "resources": {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "resolution": "10s",
            "nodeSelector": {"metrics": "on"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [
                    {"key": "zone", "operator": "In", "values": ["1_000"]},
                ]}},
            ]}},
            "topologySpreadConstraints": [
                {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"},
            ],
            "port": 8443,
            "priorityClassName": "high",
            "logLevel": "debug",
            "logFormat": "json",
        },
        "networkPolicy": "Enabled",
        "monitoring": {"rules": "Disabled", "labels": {"release": "prometheus"}},
        "kubelet": {
            "source": "Summary",
            "approveServingCertificates": true,
            "servingCertificateAddressPrefixes": ["10.0.0.0/8"],
            "addressTypes": ["Hostname", "InternalIP"],
            "nodeSelector": {"scrape": "on", "pool": "a"},
            "tls": {"mode": "Verify", "caBundle": {"inline": bundle}},
        },
        "certificates": {"caValidity": "8760h", "leafValidity": "720h"},
    })
}

#[test]
fn a_role_comes_before_what_binds_it() {
    let objects = objects(&planned(&json!({}), &two_nodes()));
    let kinds_and_names: Vec<_> = objects
        .base
        .iter()
        .map(|object| (object.resource.kind.clone(), object.name().to_owned()))
        .collect();
    let mut ours = 0;
    for (at, object) in objects.base.iter().enumerate() {
        let role = &object.object.data["roleRef"];
        let role = ["kind", "name"].map(|field| role[field].as_str().unwrap_or_default().to_owned());
        let role = kinds_and_names
            .iter()
            .position(|(kind, name)| [kind, name] == [&role[0], &role[1]]);
        ours += usize::from(role.is_some());
        assert!(
            role.is_none_or(|role| role < at),
            "{} comes too early",
            object.describe()
        );
    }
    assert!(ours >= 3, "{ours} bindings of roles of ours");
}

/// All objects, without the bytes that are new each time.
fn printable(objects: &Objects) -> Value {
    let Objects {
        base,
        api_services,
        unregistered,
        monitoring,
        unmonitored,
        absent,
        untouched: _,
    } = objects;
    let print = |object: &Object| {
        let mut value = serde_json::to_value(&object.object).unwrap();
        for (pointer, shown) in [
            ("/data/tls.crt", "<certificate>"),
            ("/data/tls.key", "<key>"),
            ("/data/ca.crt", "<certificates>"),
            ("/spec/caBundle", "<authority>"),
        ] {
            if let Some(found) = value.pointer_mut(pointer) {
                assert!(
                    found.as_str().is_some_and(|text| text.len() > 100),
                    "{pointer}: {found}"
                );
                *found = shown.into();
            }
        }
        value
    };
    json!({
        "base": base.iter().map(print).collect::<Vec<_>>(),
        "apiServices": api_services.iter().map(print).collect::<Vec<_>>(),
        "monitoring": monitoring.iter().map(print).collect::<Vec<_>>(),
        "unregistered": unregistered.iter().map(Object::describe).collect::<Vec<_>>(),
        "unmonitored": unmonitored.iter().map(Object::describe).collect::<Vec<_>>(),
        "absent": absent.iter().map(Object::describe).collect::<Vec<_>>(),
    })
}

#[test]
fn objects_of_an_empty_spec() {
    insta::assert_yaml_snapshot!(printable(&objects(&planned(&json!({}), &two_nodes()))));
}

#[test]
fn objects_of_everything_set() {
    insta::assert_yaml_snapshot!(printable(&objects(&planned(&everything(), &two_nodes()))));
}

#[test]
fn each_object_is_labelled_and_none_has_an_owner() {
    let Objects {
        base,
        api_services,
        absent,
        ..
    } = objects(&planned(&everything(), &two_nodes()));
    for object in base.iter().chain(&api_services).chain(&absent) {
        assert!(ours(&object.object.metadata), "{}", object.describe());
        assert_eq!(
            object.object.metadata.owner_references,
            None,
            "{}",
            object.describe()
        );
        assert_eq!(
            object.object.metadata.labels.as_ref().unwrap()[names::STACK_LABEL],
            names::STACK_NAME
        );
        assert!(!object.resource.plural.is_empty());
    }
}

#[test]
fn no_rule_grants_everything_and_kubelets_see_little() {
    let Objects { base, .. } = objects(&planned(&json!({}), &two_nodes()));
    let mut rules = 0;
    for object in &base {
        for rule in object.object.data["rules"].as_array().into_iter().flatten() {
            rules += 1;
            assert!(!rule.to_string().contains('*'), "{}: {rule}", object.describe());
        }
    }
    assert!(rules >= 5, "{rules}");
    let of = |kind: &str, name: &str| {
        base.iter()
            .find(|object| object.resource.kind == kind && object.name() == name)
    };
    let rules = &of("ClusterRole", names::KUBELET_CLUSTER_ROLE)
        .unwrap()
        .object
        .data["rules"];
    assert_eq!(
        *rules,
        json!([
            {"apiGroups": [""], "resources": ["nodes/metrics", "nodes/stats"], "verbs": ["get"]},
            {"nonResourceURLs": ["/debug/nodes"], "verbs": ["get"]},
        ])
    );
}

#[test]
fn a_replica_is_replaced_before_it_ends() {
    // On two nodes two replicas stay apart, three do not fit apart.
    for replicas in 1..=3 {
        let objects = objects(&planned(
            &json!({"metricsApi": {"replicas": replicas}}),
            &two_nodes(),
        ));
        let spec = &objects.base.last().unwrap().object.data["spec"];
        assert_eq!(
            spec["strategy"]["rollingUpdate"],
            json!({"maxSurge": 1, "maxUnavailable": 0}),
            "{replicas}"
        );
        // Without these keys the one more would wait for a third node.
        let apart = &spec["template"]["spec"]["affinity"]["podAntiAffinity"];
        let term = &apart["requiredDuringSchedulingIgnoredDuringExecution"][0];
        let expected = if replicas == 2 {
            json!(["pod-template-hash"])
        } else {
            Value::Null
        };
        assert_eq!(term["matchLabelKeys"], expected, "{replicas}");
    }
}

#[test]
fn records_of_keys_are_only_for_mode_auto() {
    for (mode, rules) in [("Auto", 3), ("Verify", 1), ("Insecure", 1)] {
        let objects = objects(&planned(
            &json!({"kubelet": {"tls": {"mode": mode}}}),
            &two_nodes(),
        ));
        let role = objects
            .base
            .iter()
            .find(|object| object.resource.kind == "Role")
            .unwrap();
        assert_eq!(
            role.object.data["rules"].as_array().unwrap().len(),
            rules,
            "{mode}"
        );
    }
}

#[test]
fn the_deployment_comes_after_what_its_pods_need() {
    let objects = objects(&planned(&everything(), &two_nodes()));
    assert_eq!(objects.base.last().unwrap().resource.kind, "Deployment");
    assert!(
        objects
            .base
            .iter()
            .all(|object| object.resource.kind != "APIService")
    );
    let absent: Vec<_> = objects.unmonitored.iter().map(Object::describe).collect();
    assert_eq!(absent, ["PrometheusRule monitoring/metrics-api"]);
    assert!(objects.absent.is_empty(), "{:?}", objects.absent);
}

#[test]
fn nothing_is_registered_before_an_endpoint_is_ready() {
    let objects = objects(&planned(
        &json!({}),
        &Observed {
            ready_endpoints: 0,
            ..two_nodes()
        },
    ));
    assert!(objects.api_services.is_empty());
    let absent: Vec<_> = objects.absent.iter().map(Object::describe).collect();
    assert_eq!(
        absent,
        [
            "ConfigMap monitoring/metrics-api-kubelet-ca",
            "NetworkPolicy monitoring/metrics-api"
        ]
    );
}

#[test]
fn nothing_is_registered_while_a_version_is_somebody_elses() {
    let foreign = serde_json::from_value(json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"groupPriorityMinimum": 1, "versionPriority": 1},
    }))
    .unwrap();
    let objects = objects(&planned(
        &json!({}),
        &Observed {
            api_services: vec![foreign],
            ..two_nodes()
        },
    ));
    assert!(objects.api_services.is_empty());
    let absent: Vec<_> = objects.unregistered.iter().map(Object::describe).collect();
    assert_eq!(
        absent,
        [
            "APIService v1.metrics.k8s.io",
            "APIService v1beta1.metrics.k8s.io",
        ]
    );
}
