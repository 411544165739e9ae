use std::collections::BTreeSet;

use serde_json::json;

use super::super::tests::{planned, two_nodes};
use super::*;
use crate::observe::Observed;

const DOCS: &str = include_str!("../../../../docs/runbooks.md");
/// What a test of the operator's metrics keeps as it is.
const EXPOSITION: &str = include_str!(
    "../../snapshots/metricsstack_operator__metrics__tests__the_exposition_is_as_committed.snap"
);

fn plan_with(spec: &Value, kinds: Option<&[MonitoringKind]>) -> Plan {
    let observed = Observed {
        monitoring_kinds: kinds.map(|kinds| kinds.iter().copied().collect()),
        ..two_nodes()
    };
    planned(spec, &observed)
}

fn describe(objects: &[Object]) -> Vec<String> {
    objects.iter().map(Object::describe).collect()
}

const DASHBOARD: &str = "ConfigMap monitoring/metrics-api-dashboard";

#[test]
fn what_the_cluster_has_kinds_for_is_made() {
    let all = objects(&plan_with(&json!({}), Some(&MonitoringKind::ALL)));
    assert_eq!(
        describe(&all.wanted),
        [
            "ServiceMonitor monitoring/metrics-api",
            "PodMonitor monitoring/metricsstack-operator",
            "PrometheusRule monitoring/metrics-api",
            DASHBOARD,
        ]
    );
    let rules = objects(&plan_with(&json!({}), Some(&[MonitoringKind::PrometheusRule])));
    assert_eq!(
        describe(&rules.wanted),
        ["PrometheusRule monitoring/metrics-api", DASHBOARD]
    );
    // Objects of kinds that are not there cannot be asked for.
    let none = objects(&plan_with(&json!({}), Some(&[])));
    assert_eq!(
        (describe(&none.absent), none.wanted.len()),
        (vec![DASHBOARD.to_owned()], 0)
    );
}

#[test]
fn what_is_disabled_is_removed_and_what_is_not_known_stays() {
    let spec = json!({"monitoring": {"serviceMonitor": "Disabled", "dashboard": "Disabled"}});
    let some = objects(&plan_with(&spec, Some(&MonitoringKind::ALL)));
    assert_eq!(describe(&some.wanted), ["PrometheusRule monitoring/metrics-api"]);
    assert_eq!(some.absent.len(), 3);
    let unknown = objects(&plan_with(&json!({}), None));
    assert_eq!(
        (unknown.wanted.len(), unknown.absent.len(), unknown.kept.len()),
        (0, 0, 4)
    );
}

#[test]
fn labels_that_prometheus_selects_by_are_added_and_ours_stay() {
    let labels = json!({"release": "kube-prometheus-stack", names::MANAGED_BY_LABEL: "somebody"});
    let spec = json!({"monitoring": {"labels": labels}});
    for object in objects(&plan_with(&spec, Some(&MonitoringKind::ALL))).wanted {
        let labels = object.object.metadata.labels.unwrap();
        assert_eq!(labels["release"], "kube-prometheus-stack");
        assert_eq!(labels[names::MANAGED_BY_LABEL], names::MANAGED_BY);
    }
}

/// Alerts and panels, by name.
fn expressions() -> Vec<(&'static str, String)> {
    let plan = plan_with(&json!({}), Some(&MonitoringKind::ALL));
    let alerts = rules::alerts(&plan);
    let alerts = alerts.into_iter().map(|alert| (alert.name, alert.expression));
    let panels = dashboard::PANELS.iter();
    alerts
        .chain(panels.map(|(title, expression, ..)| (*title, (*expression).to_owned())))
        .collect()
}

#[test]
fn expressions_are_promql() {
    for (name, expression) in expressions() {
        promql_parser::parser::parse(&expression).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_operator_has_the_metrics_that_are_asked_for() {
    let mut asked = BTreeSet::new();
    for (_, expression) in expressions() {
        let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let words = expression.split(|char| !is_word(char)).map(str::to_owned);
        asked.extend(words.filter(|word| word.starts_with("metricsstack_operator_")));
    }
    assert!(asked.len() > 4, "{asked:?}");
    for name in asked {
        let has = |line: &str| {
            line.strip_prefix(&name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        assert!(EXPOSITION.lines().any(has), "{name}");
    }
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let plan = plan_with(&json!({}), Some(&MonitoringKind::ALL));
    let alerts: Vec<_> = rules::alerts(&plan).iter().map(|alert| alert.name).collect();
    let headings: Vec<_> = DOCS.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts, headings);
    assert!(
        rules::spec(&plan)
            .to_string()
            .contains("docs/runbooks.md#metricsapistale")
    );
}
