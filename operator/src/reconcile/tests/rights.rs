//! What the operator asks of kube-apiserver against what its chart allows.

use std::collections::BTreeSet;

use super::*;
use crate::desired::chart_tests::{Right, allows, right, roles};

/// The namespace that the rendered chart is for, where tests have `ns`.
const OWN: &str = "metricsstack-system";

/// The right that a call needs: namespace, group, resource, verb and name.
fn needed(call: &str) -> Option<Right> {
    let (method, url) = call.split_once(' ')?;
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let group = if *parts.first()? == "api" {
        parts.drain(..2);
        ""
    } else {
        let group = *parts.get(1)?;
        parts.drain(..3.min(parts.len()));
        group
    };
    let namespace = (parts.len() > 2 && parts[0] == "namespaces").then(|| {
        let namespace = parts[1];
        parts.drain(..2);
        if namespace == "ns" { OWN } else { namespace }.to_owned()
    });
    let resource = parts.first()?;
    let name = parts.get(1).map(|name| (*name).to_owned());
    let resource = match parts.get(2) {
        Some(sub) => format!("{resource}/{sub}"),
        None => (*resource).to_owned(),
    };
    let by_field = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D"))
        .map(str::to_owned);
    let verb = match (method, &name) {
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        _ => "create",
    };
    let name = name.or(by_field);
    Some(right(
        namespace.as_deref(),
        group,
        &resource,
        verb,
        name.as_deref(),
    ))
}

#[tokio::test(start_paused = true)]
async fn the_chart_allows_whatever_the_operator_asks_for() {
    let (fake, mut reconciler) = cluster(&json!({"apiService": {"adopt": "Always"},
        "kubelet": {"tls": {"mode": "Verify"}}}));
    super::adopt::metrics_server(&fake, true);
    endpoint_is_ready(&fake);
    fake.put(
        "/api/v1/namespaces/ns/pods/metrics-api-0",
        json!({"metadata": {"name": "metrics-api-0",
                "labels": {"app.kubernetes.io/name": "metrics-api", "metricsstack.dev/stack": "default"}},
            "status": {"podIP": "127.0.0.1", "containerStatuses": [{"name": "a", "image": "", "imageID": "",
                "ready": true, "restartCount": 0, "state": {"running": {}}}]}}),
    );
    // Twice: only then there is an authority to ask replicas with.
    for _ in 0..2 {
        reconciler.reconcile().await.unwrap();
    }
    super::adopt::deleted(&fake, &mut reconciler).await;

    let roles = roles();
    let mut seen = BTreeSet::new();
    for call in fake.calls() {
        let Some(wanted) = needed(&call) else {
            continue;
        };
        assert!(allows(&roles, &wanted), "{call}: {wanted:?}");
        seen.insert((wanted.verb, wanted.resource));
    }
    for used in [
        ("patch", "metricsstacks/status"),
        ("create", "serviceaccounts/token"),
        ("create", "events"),
        ("list", "endpointslices"),
        ("delete", "secrets"),
        ("patch", "apiservices"),
        ("list", "nodes"),
    ] {
        assert!(
            seen.contains(&(used.0.to_owned(), used.1.to_owned())),
            "{used:?} is not among {seen:?}"
        );
    }
}
