//! Roles and their bindings. The operator must hold whatever it grants here: the chart's rules follow this file.

use contract::{names, trust};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{cluster_wide, namespaced};
use crate::api::TlsMode;
use crate::cluster::KUBE_SYSTEM;

const GROUP: &str = "rbac.authorization.k8s.io";
/// What kube-apiserver gives delegated authentication and authorization.
const AUTH_DELEGATOR: &str = "system:auth-delegator";
/// The Role that may read what kube-apiserver publishes for extension API servers.
const AUTH_READER: &str = "extension-apiserver-authentication-reader";

/// Lets whoever may view, edit or administer a namespace read its metrics.
pub(super) fn reader() -> ClusterRole {
    let mut metadata = cluster_wide(names::READER_CLUSTER_ROLE);
    let labels = metadata.labels.get_or_insert_default();
    for role in ["view", "edit", "admin"] {
        labels.insert(
            format!("rbac.authorization.k8s.io/aggregate-to-{role}"),
            "true".to_owned(),
        );
    }
    ClusterRole {
        metadata,
        rules: Some(vec![rule(
            names::METRICS_GROUP,
            &["nodes", "pods"],
            &["get", "list"],
        )]),
        ..ClusterRole::default()
    }
}

/// What metrics-api watches.
pub(super) fn server() -> ClusterRole {
    ClusterRole {
        metadata: cluster_wide(names::SERVER_CLUSTER_ROLE),
        rules: Some(vec![rule("", &["nodes", "pods"], &["list", "watch"])]),
        ..ClusterRole::default()
    }
}

/// What a kubelet lets the bearer of our token do, and nothing else; and the node report, for which the operator shows
/// such a token to metrics-api.
pub(super) fn kubelet() -> ClusterRole {
    let report = PolicyRule {
        non_resource_urls: Some(vec![names::DEBUG_NODES_PATH.to_owned()]),
        verbs: vec!["get".to_owned()],
        ..PolicyRule::default()
    };
    ClusterRole {
        metadata: cluster_wide(names::KUBELET_CLUSTER_ROLE),
        rules: Some(vec![
            rule("", &["nodes/metrics", "nodes/stats"], &["get"]),
            report,
        ]),
        ..ClusterRole::default()
    }
}

pub(super) fn server_binding(namespace: &str) -> ClusterRoleBinding {
    cluster_binding(
        names::SERVER_CLUSTER_ROLE,
        names::SERVER_CLUSTER_ROLE,
        namespace,
        names::METRICS_API,
    )
}

pub(super) fn kubelet_binding(namespace: &str) -> ClusterRoleBinding {
    cluster_binding(
        names::KUBELET_CLUSTER_ROLE,
        names::KUBELET_CLUSTER_ROLE,
        namespace,
        names::KUBELET_SERVICE_ACCOUNT,
    )
}

pub(super) fn auth_delegator_binding(namespace: &str) -> ClusterRoleBinding {
    cluster_binding(
        names::AUTH_DELEGATOR_BINDING,
        AUTH_DELEGATOR,
        namespace,
        names::METRICS_API,
    )
}

pub(super) fn auth_reader_binding(namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: namespaced(KUBE_SYSTEM, names::AUTH_READER_BINDING),
        role_ref: role_ref("Role", AUTH_READER),
        subjects: Some(vec![account(namespace, names::METRICS_API)]),
    }
}

/// What metrics-api needs in its own namespace: tokens of the other account and, where keys are pinned, their records.
pub(super) fn own_role(namespace: &str, mode: TlsMode) -> Role {
    let mut rules = vec![PolicyRule {
        resource_names: Some(vec![names::KUBELET_SERVICE_ACCOUNT.to_owned()]),
        ..rule("", &["serviceaccounts/token"], &["create"])
    }];
    if mode == TlsMode::Auto {
        rules.push(PolicyRule {
            resource_names: Some(trust::config_map_names().collect()),
            ..rule("", &["configmaps"], &["get", "update"])
        });
        // They are made by POST, for which the authorizer knows no name.
        rules.push(rule("", &["configmaps"], &["create"]));
    }
    Role {
        metadata: namespaced(namespace, names::METRICS_API),
        rules: Some(rules),
    }
}

pub(super) fn own_role_binding(namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: namespaced(namespace, names::METRICS_API),
        role_ref: role_ref("Role", names::METRICS_API),
        subjects: Some(vec![account(namespace, names::METRICS_API)]),
    }
}

fn cluster_binding(name: &str, role: &str, namespace: &str, service_account: &str) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: cluster_wide(name),
        role_ref: role_ref("ClusterRole", role),
        subjects: Some(vec![account(namespace, service_account)]),
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn account(namespace: &str, name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        ..Subject::default()
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    PolicyRule {
        api_groups: Some(owned(&[group])),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}
