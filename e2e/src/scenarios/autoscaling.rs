//! The cluster's own HorizontalPodAutoscaler controller works with what we serve.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::context::Context;
use super::wait::eventually;

/// The controller looks every 15 s, and takes a sample only when its window began after the pod was ready.
const SCALED_WITHIN: Duration = Duration::from_mins(3);

/// A HorizontalPodAutoscaler v2 on CPU scales a busy Deployment up.
pub(super) async fn scales_up(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let metrics = start(context).await?;
    context.say(format_args!("scaled up on {metrics}"));
    remove(context).await
}

/// A busy Deployment with its autoscaler, which has scaled it up. Gives the metrics on which it did.
pub(super) async fn start(context: &Context) -> Result<Value> {
    let labels = json!({"app": "busy"});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "busy", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "busy", "image": super::workload_image(), "imagePullPolicy": "IfNotPresent",
                    "args": ["busy"],
                    "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}},
                }]},
            },
        },
    });
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
            "minReplicas": 1,
            "maxReplicas": 2,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
            }}],
        },
    });
    context.apply(&deployment.to_string()).await?;
    context.apply(&autoscaler.to_string()).await?;
    eventually("the Deployment is scaled up", SCALED_WITHIN, async || {
        let args = ["get", "hpa.v2.autoscaling", "busy", "--output=json"];
        let status = serde_json::from_str::<Value>(&context.kubectl(&args).await?)?["status"].clone();
        let args = ["get", "deployment", "busy", "--output=jsonpath={.spec.replicas}"];
        let replicas = context.kubectl(&args).await?;
        ensure!(
            replicas == "2" && status["desiredReplicas"] == 2,
            "{replicas} replicas; {status}"
        );
        Ok(status["currentMetrics"].clone())
    })
    .await
}

/// What the autoscaler has complained of, and how often.
pub(super) async fn complaints(context: &Context) -> Result<BTreeMap<String, u64>> {
    let args = ["get", "events", "--namespace=default", "--output=json"];
    let selector = "--field-selector=involvedObject.kind=HorizontalPodAutoscaler,type=Warning";
    let events: Value =
        serde_json::from_str(&context.kubectl(&[args.as_slice(), &[selector]].concat()).await?)?;
    let mut complaints = BTreeMap::new();
    for event in events["items"].as_array().context("no list of events")? {
        let said = format!("{}: {}", event["reason"], event["message"]);
        *complaints.entry(said).or_default() += event["count"].as_u64().unwrap_or(1);
    }
    Ok(complaints)
}

/// Removes both.
pub(super) async fn remove(context: &Context) -> Result<()> {
    context
        .kubectl(&["delete", "hpa/busy", "deployment/busy", "--wait=false"])
        .await?;
    Ok(())
}
