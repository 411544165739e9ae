//! The chart's rules against what the operator does: `charts/install.yaml` is the chart, rendered.

use std::collections::BTreeSet;

use contract::trust;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde::Deserialize;

use super::tests::{everything, planned, two_nodes};
use super::*;
use crate::cluster::{KUBE_SYSTEM, LEASE};
use crate::kinds;
use crate::monitoring;

const CHART: &str = include_str!("../../../charts/install.yaml");
const RBAC: &str = "rbac.authorization.k8s.io";

#[derive(Deserialize)]
pub(crate) struct Document {
    kind: String,
    metadata: ObjectMeta,
    #[serde(default)]
    rules: Vec<PolicyRule>,
}

/// Roles and ClusterRoles of the chart. Each is bound to the operator where it is.
pub(crate) fn roles() -> Vec<Document> {
    let documents = serde_yaml::Deserializer::from_str(CHART);
    let documents = documents.map(|document| serde_yaml::Value::deserialize(document).unwrap());
    documents
        .filter(|document| !document.is_null() && document["kind"].as_str().unwrap().ends_with("Role"))
        .map(|document| serde_yaml::from_value(document).unwrap())
        .collect()
}

/// One thing that somebody may do. Without a name: to any.
#[derive(Clone, Debug)]
pub(crate) struct Right {
    namespace: Option<String>,
    group: String,
    pub(crate) resource: String,
    pub(crate) verb: String,
    name: Option<String>,
}

pub(crate) fn right(
    namespace: Option<&str>,
    group: &str,
    resource: &str,
    verb: &str,
    name: Option<&str>,
) -> Right {
    Right {
        namespace: namespace.map(str::to_owned),
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
        name: name.map(str::to_owned),
    }
}

/// As RBAC's authorizer decides: a rule with names allows nothing without one.
pub(crate) fn allows(roles: &[Document], wanted: &Right) -> bool {
    let has = |list: Option<&Vec<String>>, word: &String| list.is_some_and(|list| list.contains(word));
    roles
        .iter()
        .filter(|role| role.kind == "ClusterRole" || role.metadata.namespace == wanted.namespace)
        .flat_map(|role| &role.rules)
        .any(|rule| {
            has(rule.api_groups.as_ref(), &wanted.group)
                && has(rule.resources.as_ref(), &wanted.resource)
                && rule.verbs.contains(&wanted.verb)
                && rule
                    .resource_names
                    .as_ref()
                    .is_none_or(|names| wanted.name.as_ref().is_some_and(|name| names.contains(name)))
        })
}

fn all_objects() -> Vec<Object> {
    let mut all = Vec::new();
    for spec in [serde_json::json!({}), everything()] {
        let mut plan = planned(&spec, &two_nodes());
        plan.namespace = "metricsstack-system".to_owned();
        let Objects {
            base,
            api_services,
            monitoring,
            unmonitored,
            absent,
            ..
        } = objects(&plan);
        all.extend(
            base.into_iter()
                .chain(api_services)
                .chain(monitoring)
                .chain(unmonitored)
                .chain(absent),
        );
    }
    all
}

#[test]
fn the_operator_may_keep_each_object_that_it_makes_and_find_its_kind() {
    let roles = roles();
    for object in all_objects() {
        let Object { resource, .. } = &object;
        let right = |verb, name| right(object.namespace(), &resource.group, &resource.plural, verb, name);
        for verb in ["get", "create", "patch", "delete"] {
            let wanted = right(verb, Some(object.name()));
            assert!(allows(&roles, &wanted), "{wanted:?}");
        }
        // Kinds that come and go are not watched.
        let seeing: &[_] = if resource.group == monitoring::GROUP {
            &["list"]
        } else {
            &["list", "watch"]
        };
        for &verb in seeing {
            // Secrets are only seen by name.
            let wanted = right(verb, (resource.kind == "Secret").then(|| object.name()));
            assert!(allows(&roles, &wanted), "{wanted:?}");
        }
    }
}

#[test]
fn the_operator_holds_whatever_it_grants() {
    let roles = roles();
    let mut granted = 0;
    for object in all_objects() {
        if let Some(rules) = object.object.data.get("rules") {
            let given: Vec<PolicyRule> = serde_json::from_value(rules.clone()).unwrap();
            for rule in given {
                granted += 1;
                holds(&roles, object.namespace(), &rule);
            }
        }
        if let Some(reference) = object.object.data.get("roleRef") {
            let reference: RoleRef = serde_json::from_value(reference.clone()).unwrap();
            // What is in our own roles is held; of others there must be a right to bind them.
            let own = all_objects()
                .iter()
                .any(|role| role.resource.kind == reference.kind && role.name() == reference.name);
            let plural = format!("{}s", reference.kind.to_lowercase());
            let bind = right(object.namespace(), RBAC, &plural, "bind", Some(&reference.name));
            assert!(own || allows(&roles, &bind), "{}", object.describe());
        }
    }
    assert!(granted > 8, "{granted}");
}

fn holds(roles: &[Document], namespace: Option<&str>, rule: &PolicyRule) {
    for url in rule.non_resource_urls.iter().flatten() {
        let held = roles.iter().flat_map(|role| &role.rules).any(|held| {
            held.non_resource_urls
                .as_ref()
                .is_some_and(|urls| urls.contains(url))
                && rule.verbs.iter().all(|verb| held.verbs.contains(verb))
        });
        assert!(held, "{url}");
    }
    let names = rule.resource_names.clone().map_or_else(
        || vec![None],
        |names| names.into_iter().map(Some).collect::<Vec<_>>(),
    );
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for (verb, name) in rule
                .verbs
                .iter()
                .flat_map(|verb| names.iter().map(move |name| (verb, name)))
            {
                let wanted = right(namespace, group, resource, verb, name.as_deref());
                assert!(allows(roles, &wanted), "{wanted:?}");
            }
        }
    }
}

#[test]
fn the_operator_may_do_nothing_to_objects_that_it_does_not_know() {
    let mut known: BTreeSet<String> = all_objects()
        .iter()
        .map(|object| object.name().to_owned())
        .collect();
    known.extend(trust::config_map_names());
    known.extend(
        [
            LEASE,
            names::AUTHENTICATION_CONFIG_MAP,
            "metricsstack-system",
            "metrics-api-tls",
            "kubernetes.io/kubelet-serving",
            "system:auth-delegator",
            "extension-apiserver-authentication-reader",
        ]
        .map(str::to_owned),
    );
    let made_by_post = ["configmaps", "events", "leases"];
    let writing = [
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "bind",
        "escalate",
    ];
    let mut shards = BTreeSet::new();
    for rule in roles().into_iter().flat_map(|role| role.rules) {
        let text = serde_json::to_string(&rule).unwrap();
        assert!(!text.contains('*'), "{text}");
        let resources = rule.resources.clone().unwrap_or_default();
        match &rule.resource_names {
            Some(names) => {
                assert!(names.iter().all(|name| known.contains(name)), "{text}");
                shards.extend(
                    names
                        .iter()
                        .filter(|name| name.starts_with(trust::CONFIG_MAP_PREFIX))
                        .cloned(),
                );
            }
            None if resources
                .iter()
                .all(|resource| resource.starts_with("metricsstacks")) => {}
            None => {
                let changed: Vec<_> = rule
                    .verbs
                    .iter()
                    .filter(|verb| writing.contains(&verb.as_str()))
                    .collect();
                let post = resources
                    .iter()
                    .all(|resource| made_by_post.contains(&resource.as_str()));
                let events = resources == ["events"];
                // Their names are not known before. What they run is the operator's to say anyway, by their Deployment.
                let pods = resources == ["pods"] && changed == ["patch"];
                // kube-apiserver wants the right to the signer as well, which is by name.
                let approval = resources == ["certificatesigningrequests/approval"];
                assert!(
                    changed.is_empty() || (post && changed == ["create"]) || events || pods || approval,
                    "{text}"
                );
            }
        }
    }
    assert_eq!(shards, trust::config_map_names().collect());
}

#[test]
fn what_is_cleaned_up_may_be_found() {
    let roles = roles();
    let own = "metricsstack-system";
    for kind in kinds::made(own)
        .iter()
        .chain([&kinds::registration(), &kinds::trust_records(own)])
    {
        let name = (kind.resource.kind == "Secret").then_some(names::CA_SECRET);
        let wanted = right(
            kind.namespace,
            &kind.resource.group,
            &kind.resource.plural,
            "list",
            name,
        );
        assert!(allows(&roles, &wanted), "{wanted:?}");
    }
    for shard in trust::config_map_names() {
        let wanted = right(Some(own), "", "configmaps", "delete", Some(&shard));
        assert!(allows(&roles, &wanted), "{wanted:?}");
    }
    let wanted = right(
        Some(KUBE_SYSTEM),
        "",
        "configmaps",
        "watch",
        Some(names::AUTHENTICATION_CONFIG_MAP),
    );
    assert!(allows(&roles, &wanted), "{wanted:?}");
}

#[test]
fn the_chart_can_be_installed_into_any_namespace() {
    // Also into those in which it has a Role anyway: no name comes twice.
    let mut seen = BTreeSet::new();
    for role in roles() {
        let name = role.metadata.name.unwrap();
        assert!(seen.insert((role.kind, name.clone())), "{name}");
    }
}
