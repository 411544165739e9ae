//! What there is to be woken for.

use std::time::Duration;

use contract::names::METRICS_API;
use serde_json::{Value, json};

use crate::certificates;
use crate::monitoring::MonitoringKind;
use crate::plan::Plan;

/// Where it says what to do, an alert a heading.
pub(super) const RUNBOOKS: &str = "docs/runbooks.md";

/// How old kubelets' own samples may be.
const KUBELETS_OWN: Duration = Duration::from_secs(10);
const STALE_AT_MOST: Duration = Duration::from_mins(5);

/// An alert.
pub(super) struct Alert {
    pub(super) name: &'static str,
    pub(super) expression: String,
    /// How long that holds before somebody is told.
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    /// With what Prometheus puts in.
    description: &'static str,
}

/// The rules of a plan.
pub(super) fn spec(plan: &Plan) -> Value {
    let rules: Vec<_> = alerts(plan)
        .into_iter()
        .map(|alert| {
            json!({
                "alert": alert.name,
                "expr": alert.expression,
                "for": alert.lasts,
                "labels": {"severity": alert.severity},
                "annotations": {
                    "summary": alert.summary,
                    "description": alert.description,
                    "runbook": format!("{RUNBOOKS}#{}", alert.name.to_lowercase()),
                },
            })
        })
        .collect();
    json!({"groups": [{"name": "metricsstack", "rules": rules}]})
}

/// What an operator said last counts for a while: one that is gone says nothing. Then it counts that no replica is scraped,
/// where any should be. While the group is somebody else's, that one may well answer.
fn unavailable(plan: &Plan) -> String {
    let last = |series: &str| format!("max(last_over_time(metricsstack_operator_{series}[5m]))");
    let available = last(r#"condition{type="Available",status="True"}"#);
    let foreign = last(r#"finding{reason="ForeignApiService"}"#);
    let fails = if plan.monitoring.scrapes(MonitoringKind::ServiceMonitor) {
        let up = format!(r#"up{{namespace="{}",service="{METRICS_API}"}}"#, plan.namespace);
        format!("({available} == 0 or (absent({up} == 1) unless on() {available} == 1))")
    } else {
        format!("{available} == 0")
    };
    format!("{fails} unless on() {foreign} == 1")
}

pub(super) fn alerts(plan: &Plan) -> Vec<Alert> {
    let leaf = &plan.certificates.leaf;
    let late = certificates::late(leaf.not_after().duration_since(leaf.made())).as_secs();
    // Beyond that the buckets end, and what is older than three resolutions is not answered any more.
    let stale = (plan.metrics_api.resolution * 2 + KUBELETS_OWN)
        .min(STALE_AT_MOST)
        .as_secs();
    let alert = |name, expression: &str, lasts, severity, summary, description| Alert {
        name,
        expression: expression.to_owned(),
        lasts,
        severity,
        summary,
        description,
    };
    let mut alerts = vec![
        alert(
            "MetricsApiUnavailable",
            &unavailable(plan),
            "5m",
            "critical",
            "metrics.k8s.io cannot be read: kubectl top and HorizontalPodAutoscalers do not work",
            "kubectl describe mstack default says why.",
        ),
        alert(
            "MetricsApiNodesNotAnswering",
            "max by (class) (metrics_api_nodes_failing) > 0",
            "15m",
            "warning",
            "kubelets do not answer metrics-api, so that their nodes and pods have no metrics",
            "{{ $value }} of them fail with {{ $labels.class }}.",
        ),
        alert(
            "MetricsApiStale",
            &format!(
                "histogram_quantile(0.5, sum by (le) (rate(metrics_server_api_metric_freshness_seconds_bucket[10m]))) > {stale}"
            ),
            "10m",
            "warning",
            "half of what metrics-api answers is older than two resolutions",
            "Half of it is older than {{ $value | humanizeDuration }}.",
        ),
        alert(
            "MetricsApiCertificateExpires",
            &format!(
                "min by (secret) (metricsstack_operator_certificate_expiry_timestamp_seconds) - time() < {late}"
            ),
            "5m",
            "critical",
            "a certificate of metrics-api was not renewed in time",
            "That in Secret {{ $labels.secret }} ends in {{ $value | humanizeDuration }}.",
        ),
        alert(
            "MetricsApiFrontProxyCertificateExpires",
            // The finding comes a month before, and not where such certificates live for days only.
            r#"min(metricsstack_operator_front_proxy_certificate_expiry_timestamp_seconds) - time() < 604800 and on() max(metricsstack_operator_finding{reason="FrontProxyCertificateExpires"}) == 1"#,
            "1h",
            "critical",
            "kube-apiserver's front-proxy certificate ends within a week, and then no extension API server answers",
            "It ends in {{ $value | humanizeDuration }}.",
        ),
    ];
    // Where nobody scrapes the operator, nothing would be heard of it either.
    if plan.monitoring.scrapes(MonitoringKind::PodMonitor) {
        alerts.push(alert(
            "MetricsStackOperatorNotReconciling",
            r#"sum(increase(metricsstack_operator_reconciles_total{result="success"}[15m])) == 0 or absent(metricsstack_operator_leader == 1)"#,
            "10m",
            "warning",
            "no replica of the operator reconciles",
            "What runs goes on, but nothing is put right or renewed.",
        ));
    }
    alerts
}
