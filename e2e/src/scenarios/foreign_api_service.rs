//! An APIService of the group that belongs to somebody else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::context::Context;
use super::wait::eventually;

const NAMED_WITHIN: Duration = Duration::from_mins(1);
const FOREIGN: &str = "v1beta1.metrics.k8s.io";

/// It is left alone and named, none of the group is ours meanwhile, and its end is noticed.
pub(super) async fn is_left_alone(context: &Context) -> Result<()> {
    context.install().await?;
    context.delete_stack("background").await?;
    let foreign = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": FOREIGN},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": true,
            "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
        },
    });
    context.apply(&foreign.to_string()).await?;
    let before = api_service(context).await?;
    context.apply_stack(&Value::Null).await?;
    let looked = look(context, &before).await;
    context.kubectl(&["delete", "apiservices", FOREIGN]).await?;
    looked?;
    context.ready().await.context("after the other one is gone")?;
    Ok(())
}

async fn look(context: &Context, before: &Value) -> Result<()> {
    eventually("the status names the other one", NAMED_WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect_current()?;
        stack.expect("Ready", "False", "")?;
        let services = stack.0["status"]["apiServices"]
            .as_array()
            .context("no apiServices in the status")?;
        let named = services
            .iter()
            .find(|service| service["name"] == FOREIGN)
            .context("it is not among them")?;
        let right = named["service"] == "kube-system/metrics-server" && named["managed"] == false;
        ensure!(right, "{named}");
        let finding = stack.expect_finding("ForeignApiService")?.to_string();
        ensure!(finding.contains("kube-system/metrics-server"), "{finding}");
        Ok(())
    })
    .await?;
    let args = ["rollout", "status", "deployment/metrics-api", "--timeout=90s"];
    let namespace = ["--namespace", crate::test::install_yaml::NAMESPACE];
    context.kubectl(&[args.as_slice(), &namespace].concat()).await?;
    let after = api_service(context).await?;
    ensure!(after == *before, "the other one was {before}, it is {after}");
    let others = context
        .kubectl(&["get", "apiservices", "v1.metrics.k8s.io", "--ignore-not-found"])
        .await?;
    ensure!(
        others.is_empty(),
        "one of the group is ours beside the other one: {others}"
    );
    Ok(())
}

/// The other one without what the cluster writes about it.
async fn api_service(context: &Context) -> Result<Value> {
    let args = ["get", "apiservices", FOREIGN, "--output=json"];
    let mut found: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    // The aggregator writes the status, which is not ours either.
    let fields = found.as_object_mut().context("no object")?;
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !matches!(field.as_str(), "managedFields" | "resourceVersion"));
    }
    Ok(found)
}
