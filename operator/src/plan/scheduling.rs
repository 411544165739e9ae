//! How many nodes can run a replica. The scheduler decides; this only tells one node from more.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::desired;
use crate::observe::NodeFacts;

/// Taints of this prefix come and go with a node's health, or while it is drained.
const PASSING_TAINTS: &str = "node.kubernetes.io/";

/// Those of kubeadm's cluster DNS: a cluster of one control-plane node must be able to run metrics-api.
pub(super) fn default_tolerations() -> Vec<Toleration> {
    vec![
        Toleration {
            key: Some("CriticalAddonsOnly".to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        },
        Toleration {
            key: Some("node-role.kubernetes.io/control-plane".to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoSchedule".to_owned()),
            ..Toleration::default()
        },
    ]
}

/// Over zones as evenly as can be, replicas of one revision.
pub(super) fn default_spread() -> Vec<TopologySpreadConstraint> {
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(desired::selector()),
            ..LabelSelector::default()
        }),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    }]
}

/// How many nodes can run a replica, whether or not they are well at the moment.
pub(super) fn able_nodes(
    nodes: &[NodeFacts],
    selector: &BTreeMap<String, String>,
    tolerations: &[Toleration],
    affinity: Option<&Affinity>,
) -> usize {
    let terms = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .map(|selector| selector.node_selector_terms.as_slice());
    nodes
        .iter()
        .filter(|node| {
            selector
                .iter()
                .all(|(key, value)| node.labels.get(key) == Some(value))
        })
        .filter(|node| terms.is_none_or(|terms| terms.iter().any(|term| matches(term, node))))
        .filter(|node| {
            node.taints
                .iter()
                .filter(|taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with(PASSING_TAINTS))
                .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        })
        .count()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let Toleration {
        key,
        operator,
        value,
        effect,
        toleration_seconds: _,
    } = toleration;
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let same_key = given(key).is_none_or(|key| key == taint.key);
    let same_effect = given(effect).is_none_or(|effect| effect == taint.effect);
    let same_value = operator.as_deref() == Some("Exists") || given(value) == given(&taint.value);
    same_key && same_effect && same_value
}

fn matches(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // An empty term matches nothing.
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|requirement| meets(requirement, node.labels.get(&requirement.key).map(String::as_str)))
        // `metadata.name` is the only field there is.
        && fields.iter().all(|requirement| meets(requirement, Some(&node.name)))
}

fn meets(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = number(found).zip(number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared.is_some_and(|(found, bound)| found > bound),
        "Lt" => compared.is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, labels: &[(&str, &str)], taints: &[(&str, &str)]) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            taints: taints
                .iter()
                .map(|(key, effect)| Taint {
                    key: (*key).to_owned(),
                    effect: (*effect).to_owned(),
                    ..Taint::default()
                })
                .collect(),
            ..NodeFacts::default()
        }
    }

    fn able(nodes: &[NodeFacts], tolerations: &[Toleration]) -> usize {
        able_nodes(nodes, &BTreeMap::new(), tolerations, None)
    }

    #[test]
    fn control_plane_nodes_count_by_default() {
        let nodes = [
            node(
                "a",
                &[],
                &[("node-role.kubernetes.io/control-plane", "NoSchedule")],
            ),
            node("b", &[], &[]),
        ];
        assert_eq!(able(&nodes, &default_tolerations()), 2);
        assert_eq!(able(&nodes, &[]), 1);
    }

    #[test]
    fn passing_and_soft_taints_do_not_count() {
        let nodes = [
            node("a", &[], &[("node.kubernetes.io/unschedulable", "NoSchedule")]),
            node("b", &[], &[("node.kubernetes.io/not-ready", "NoExecute")]),
            node("c", &[], &[("mine", "PreferNoSchedule")]),
            node("d", &[], &[("mine", "NoExecute")]),
        ];
        assert_eq!(able(&nodes, &[]), 3);
        let all = Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        };
        assert_eq!(able(&nodes, &[all]), 4);
    }

    #[test]
    fn selectors_and_affinity_narrow() {
        let nodes = [
            node("a", &[("zone", "1"), ("cores", "8")], &[]),
            node("b", &[("zone", "2")], &[]),
        ];
        let selector = BTreeMap::from([("zone".to_owned(), "1".to_owned())]);
        assert_eq!(able_nodes(&nodes, &selector, &[], None), 1);
        let cases = [
            ("zone", "In", vec!["1", "2"], 2),
            ("zone", "NotIn", vec!["1"], 1),
            ("cores", "Exists", vec![], 1),
            ("cores", "DoesNotExist", vec![], 1),
            ("cores", "Gt", vec!["4"], 1),
            ("cores", "Lt", vec!["4"], 0),
        ];
        for (key, operator, values, expected) in cases {
            let affinity: Affinity = serde_json::from_value(serde_json::json!({
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": key, "operator": operator, "values": values}]},
                ]}},
            }))
            .unwrap();
            let found = able_nodes(&nodes, &BTreeMap::new(), &[], Some(&affinity));
            assert_eq!(found, expected, "{key} {operator}");
        }
    }
}
