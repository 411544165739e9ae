//! What cannot be is refused by name: by the schema, or by a condition while what ran before goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::context::Context;
use super::stack::manifest;
use super::wait::eventually;

const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// The schema's refusals, then the operator's.
pub(super) async fn is_refused(context: &Context) -> Result<()> {
    context.working_stack().await?;
    by_the_schema(context).await?;
    by_a_condition(context).await?;
    context.working_stack().await.context("with the spec put right")?;
    Ok(())
}

async fn by_the_schema(context: &Context) -> Result<()> {
    for (spec, field) in [
        (json!({"metricsApi": {"replicas": 0}}), "spec.metricsApi.replicas"),
        (
            json!({"metricsApi": {"resolution": "soon"}}),
            "spec.metricsApi.resolution",
        ),
        (
            json!({"metricsApi": {"resolution": "1s"}}),
            "spec.metricsApi.resolution",
        ),
        (
            json!({"metricsApi": {"imagePullPolicy": "Sometimes"}}),
            "spec.metricsApi.imagePullPolicy",
        ),
        (
            json!({"metricsApi": {"resources": {"requests": {"cpu": "much"}}}}),
            "spec.metricsApi.resources.requests.cpu",
        ),
        (
            json!({"kubelet": {"tls": {"mode": "Trust"}}}),
            "spec.kubelet.tls.mode",
        ),
        (
            json!({"kubelet": {"addressTypes": ["Somewhere"]}}),
            "spec.kubelet.addressTypes",
        ),
        (
            json!({"certificates": {"leafValidity": "1s"}}),
            "spec.certificates.leafValidity",
        ),
        (json!({"metricApi": {}}), "metricApi"),
    ] {
        expect_refusal(context, &manifest(&spec), field).await?;
    }
    let mut other = manifest(&Value::Null);
    other["metadata"]["name"] = json!("second");
    expect_refusal(context, &other, "metadata.name").await
}

async fn expect_refusal(context: &Context, stack: &Value, field: &str) -> Result<()> {
    match context.apply(&stack.to_string()).await {
        Ok(taken) => bail!("{stack} was taken: {taken}"),
        Err(refusal) => {
            let message = format!("{refusal:#}");
            ensure!(
                message.contains(field),
                "the refusal does not name {field}: {message}"
            );
            Ok(())
        }
    }
}

async fn by_a_condition(context: &Context) -> Result<()> {
    let before = deployment(context).await?;
    let spec = json!({"kubelet": {"tls": {"caBundle": {"inline": "not a certificate"}}}});
    context.apply_stack(&spec).await?;
    eventually("a condition says what is wrong", SEEN_WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect_current()?;
        stack.expect("Ready", "False", "InvalidSpec")?;
        let finding = stack.expect_finding("spec.kubelet.tls.caBundle")?;
        ensure!(finding["reason"] == "InvalidSpec", "{finding}");
        ensure!(
            finding["remedy"]
                .as_str()
                .is_some_and(|remedy| !remedy.is_empty()),
            "no remedy: {finding}"
        );
        Ok(())
    })
    .await?;
    ensure!(deployment(context).await? == before, "the Deployment was changed");
    context
        .kubectl(&["top", "node"])
        .await
        .context("what ran before")?;
    Ok(())
}

/// The spec of metrics-api's Deployment.
async fn deployment(context: &Context) -> Result<Value> {
    let namespace = crate::test::install_yaml::NAMESPACE;
    let args = [
        "get",
        "deployment",
        contract::names::METRICS_API,
        "--namespace",
        namespace,
        "--output=json",
    ];
    let deployment: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    Ok(deployment["spec"].clone())
}
