//! What tests of several steps start from: a stack, a plan, two nodes and what a replica reports of them.

use contract::report::{NodeError, NodeReport, NodeState, TlsState};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::MetricsStack;
use crate::observe::{NodeFacts, Observed, Replica};
use crate::plan::{self, Environment, Plan, Refusal};

/// The time at which everything is planned.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

/// The stack that somebody applies with this spec.
pub(crate) fn stack(spec: &Value) -> MetricsStack {
    serde_json::from_value(json!({
        "apiVersion": "metricsstack.dev/v1alpha1",
        "kind": "MetricsStack",
        "metadata": {"name": "default"},
        "spec": spec,
    }))
    .unwrap()
}

/// What becomes of it in the namespace `ns`.
pub(crate) fn planned(spec: &Value, observed: &Observed) -> Result<Plan, Refusal> {
    let environment = Environment::new("ns", "image");
    plan::plan(&stack(spec), None, observed, &environment, now())
}

/// Nodes `a` and `b`, and a control plane that publishes its front proxy.
pub(crate) fn two_nodes() -> Observed {
    let node = |name: &str| NodeFacts {
        name: name.to_owned(),
        ..NodeFacts::default()
    };
    Observed {
        namespace: "ns".to_owned(),
        nodes: ["a", "b"].map(node).to_vec(),
        authentication: serde_json::from_value(json!({"data": {
            "requestheader-client-ca-file": "-----BEGIN CERTIFICATE-----\n",
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
        }}))
        .unwrap(),
        ..Observed::default()
    }
}

/// What a replica says of a node: that it answered just now, or why it never did.
pub(crate) fn node(name: &str, tls: TlsState, error: Option<NodeError>) -> NodeState {
    NodeState {
        name: name.to_owned(),
        address: Some("10.0.0.1:10250".to_owned()),
        tls,
        last_success: error.is_none().then(|| "2026-11-24T05:00:00Z".to_owned()),
        last_attempt: Some("2026-11-24T05:00:00Z".to_owned()),
        latency_ms: None,
        source: None,
        error,
    }
}

/// The replica in Pod `metrics-api-1`.
pub(crate) fn replica(nodes: Vec<NodeState>) -> Replica {
    Replica {
        pod: "metrics-api-1".to_owned(),
        report: Ok(NodeReport {
            nodes,
            ..NodeReport::default()
        }),
    }
}
