//! What there is to be woken for.

use serde_json::{Value, json};

use crate::plan::Plan;

/// Where it says what to do, an alert a heading.
pub(super) const RUNBOOKS: &str = "docs/runbooks.md";

/// An alert.
pub(super) struct Alert {
    pub(super) name: &'static str,
    pub(super) expression: String,
    /// How long that holds before somebody is told.
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
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
                    "runbook": format!("{RUNBOOKS}#{}", alert.name.to_lowercase()),
                },
            })
        })
        .collect();
    json!({"groups": [{"name": "metricsstack", "rules": rules}]})
}

pub(super) fn alerts(plan: &Plan) -> Vec<Alert> {
    // Half of what is left when a renewal is due: by then it has failed for long.
    let leaf = &plan.certificates.leaf;
    let lifetime = leaf.not_after().duration_since(leaf.made()).as_secs();
    let resolution = plan.metrics_api.resolution.as_secs();
    let alert = |name, expression: &str, lasts, severity, summary| Alert {
        name,
        expression: expression.to_owned(),
        lasts,
        severity,
        summary,
    };
    vec![
        alert(
            "MetricsApiUnavailable",
            r#"max(metricsstack_operator_condition{type="Available",status="True"}) == 0"#,
            "5m",
            "critical",
            "metrics.k8s.io cannot be read: kubectl top and HorizontalPodAutoscalers do not work",
        ),
        alert(
            "MetricsApiNodesNotAnswering",
            "max by (class) (metrics_api_nodes_failing) > 0",
            "15m",
            "warning",
            "kubelets do not answer metrics-api, so that their nodes and pods have no metrics",
        ),
        alert(
            "MetricsApiStale",
            &format!(
                "histogram_quantile(0.5, sum by (le) (rate(metrics_server_api_metric_freshness_seconds_bucket[10m]))) > {}",
                resolution * 4
            ),
            "10m",
            "warning",
            "half of what metrics-api answers is older than four resolutions",
        ),
        alert(
            "MetricsApiCertificateExpires",
            &format!(
                "min by (secret) (metricsstack_operator_certificate_expiry_timestamp_seconds) - time() < {}",
                lifetime / 6
            ),
            "5m",
            "critical",
            "a certificate of metrics-api was not renewed in time",
        ),
        alert(
            "MetricsStackOperatorNotReconciling",
            r#"sum(increase(metricsstack_operator_reconciles_total{result="success"}[15m])) == 0 or absent(metricsstack_operator_leader == 1)"#,
            "10m",
            "warning",
            "no replica of the operator reconciles",
        ),
    ]
}
