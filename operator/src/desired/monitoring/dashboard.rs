//! A dashboard for Grafana: whether it works, how fast, and what is wrong.

use serde_json::{Value, json};

/// Title, expression, legend and unit of each panel, in rows of two.
pub(super) const PANELS: [(&str, &str, &str, &str); 8] = [
    (
        "Conditions that are True",
        r#"max by (type) (metricsstack_operator_condition{status="True"})"#,
        "{{type}}",
        "none",
    ),
    (
        "Findings",
        "max by (reason) (metricsstack_operator_finding) > 0",
        "{{reason}}",
        "none",
    ),
    (
        "Nodes by trust",
        "max by (tls) (metrics_api_nodes)",
        "{{tls}}",
        "none",
    ),
    (
        "Nodes that do not answer",
        "max by (class) (metrics_api_nodes_failing)",
        "{{class}}",
        "none",
    ),
    (
        "Age of what is answered (median)",
        "histogram_quantile(0.5, sum by (le) (rate(metrics_server_api_metric_freshness_seconds_bucket[5m])))",
        "age",
        "s",
    ),
    (
        "Kubelets' answers (99 %)",
        "histogram_quantile(0.99, sum by (le) (rate(metrics_server_kubelet_request_duration_seconds_bucket[5m])))",
        "duration",
        "s",
    ),
    (
        "Memory",
        r#"process_resident_memory_bytes{service="metrics-api"}"#,
        "{{pod}}",
        "bytes",
    ),
    (
        "Time until certificates expire",
        r#"(min by (secret) (metricsstack_operator_certificate_expiry_timestamp_seconds) or label_replace(min(metricsstack_operator_front_proxy_certificate_expiry_timestamp_seconds), "secret", "front proxy", "", "")) - time()"#,
        "{{secret}}",
        "s",
    ),
];
const WIDTH: usize = 12;
const HEIGHT: usize = 8;

/// The dashboard.
pub(super) fn json() -> String {
    let panels: Vec<_> = PANELS
        .iter()
        .enumerate()
        .map(|(at, panel)| self::panel(at, *panel))
        .collect();
    let dashboard = json!({
        "uid": "metricsstack",
        "title": "MetricsStack",
        "tags": ["metrics.k8s.io"],
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]},
        "panels": panels,
    });
    dashboard.to_string()
}

fn panel(at: usize, (title, expression, legend, unit): (&str, &str, &str, &str)) -> Value {
    json!({
        "id": at + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": at % 2 * WIDTH, "y": at / 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "expr": expression, "legendFormat": legend}],
    })
}
