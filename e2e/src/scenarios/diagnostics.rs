//! What is printed about a cluster when a scenario failed on it.

use std::fmt::Write as _;

use crate::cluster::Cluster;
use crate::test::command::last_lines;
use crate::test::install_yaml::NAMESPACE;

/// A title, what to ask kubectl, and how many of the last lines to show.
const QUESTIONS: &[(&str, &[&str], usize)] = &[
    (
        "MetricsStack",
        &["get", "metricsstacks.metricsstack.dev", "--output", "yaml"],
        200,
    ),
    ("APIServices", &["get", "apiservices.apiregistration.k8s.io"], 60),
    (
        "pods",
        &["get", "pods", "--all-namespaces", "--output", "wide"],
        60,
    ),
    ("nodes", &["get", "nodes", "--output", "wide"], 20),
    (
        "events",
        &["get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"],
        40,
    ),
    (
        "operator",
        &logs("app.kubernetes.io/name=metricsstack-operator"),
        80,
    ),
    ("metrics-api", &logs("app.kubernetes.io/name=metrics-api"), 80),
];

const fn logs(selector: &'static str) -> [&'static str; 7] {
    [
        "logs",
        "--namespace",
        NAMESPACE,
        "--prefix",
        "--tail=80",
        "--selector",
        selector,
    ]
}

/// Logs, stack, pods and events, as far as they can be had.
pub(crate) async fn collect(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (title, args, lines) in QUESTIONS {
        let answer = match cluster.kubectl(*args).await {
            Ok(answer) => last_lines(&answer, *lines),
            Err(error) => format!("{error:#}"),
        };
        let _ = write!(text, "--- {title}\n{}\n", answer.trim_end());
    }
    text
}
