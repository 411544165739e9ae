//! A metrics server that works hands over to the stack, and gets its APIService back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::context::Context;
use super::wait::eventually;
use super::{autoscaling, drop_in, load};
use crate::images::metrics_server_reference;
use crate::test::install_yaml::NAMESPACE;

const API_SERVICE: &str = "v1beta1.metrics.k8s.io";
/// The first replica of metrics-api is ready after two samples of each kubelet.
const TAKEN_WITHIN: Duration = Duration::from_mins(2);
/// How often the autoscaler reads metrics, and some more.
const LOOKS: SignedDuration = SignedDuration::from_secs(17);
const READ_WITHIN: Duration = Duration::from_secs(40);
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(90);

/// Under a steady load: with `adopt: Always` the APIService moves from metrics-server itself to metrics-api, and back when
/// the stack is deleted.
pub(super) async fn there_and_back(context: &Context) -> Result<()> {
    context.remove_everything().await?;
    let manifests = drop_in::manifests(context, &metrics_server_reference()).await?;
    context.apply(&manifests).await?;
    let looked = look(context).await;
    let removed = context.remove_everything().await;
    let delete = ["delete", "--ignore-not-found", "--filename", "-"];
    let deleted = context.cluster.kubectl_stdin(delete, &manifests).await;
    looked.and(removed).and(deleted.map(drop))
}

async fn look(context: &Context) -> Result<()> {
    drop_in::works(context).await.context("before the stack")?;
    context.install().await?;
    let before = api_service(context).await?;
    autoscaling::start(context)
        .await
        .context("an autoscaler before the stack")?;
    let complaints = autoscaling::complaints(context).await?;
    let ((), outcome) = load::during(context, async {
        context
            .apply_stack(&json!({"apiService": {"adopt": "Always"}}))
            .await?;
        taken(context).await?;
        scales_on(context).await?;
        context.delete_stack("background").await
    })
    .await?;
    scales_on(context).await.context("after the stack")?;
    let mut new = autoscaling::complaints(context).await?;
    new.retain(|said, times| *times > complaints.get(said).copied().unwrap_or(0));
    context.say(format_args!(
        "taken over and given back: {} reads answered, {} failed",
        outcome.answered,
        outcome.failed.len()
    ));
    outcome
        .expect_no_failure()
        .context("while the APIService moved")?;
    ensure!(
        new.is_empty(),
        "the autoscaler complained of what it had not before: {new:?}"
    );
    autoscaling::remove(context).await?;
    eventually("it is as it was", GIVEN_BACK_WITHIN, async || {
        let after = api_service(context).await?;
        for field in ["spec", "labels"] {
            ensure!(
                after[field] == before[field],
                "{field}: it was {before}, it is {after}"
            );
        }
        Ok(())
    })
    .await
}

/// Waits until the autoscaler has read metrics once more, and is content with them.
async fn scales_on(context: &Context) -> Result<()> {
    let since = Timestamp::now();
    eventually("the autoscaler reads metrics", READ_WITHIN, async || {
        let args = ["get", "hpa.v2.autoscaling", "busy", "--output=json"];
        let found: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
        let conditions = found["status"]["conditions"]
            .as_array()
            .context("no conditions")?;
        let active = conditions
            .iter()
            .find(|condition| condition["type"] == "ScalingActive");
        ensure!(
            active.is_some_and(|active| active["status"] == "True"),
            "{conditions:?}"
        );
        // It looks every 15 s.
        ensure!(
            Timestamp::now().duration_since(since) > LOOKS,
            "it has not looked again yet"
        );
        Ok(())
    })
    .await
}

async fn taken(context: &Context) -> Result<()> {
    eventually("the APIService is the stack's", TAKEN_WITHIN, async || {
        let found = api_service(context).await?;
        let expected = json!({"name": "metrics-api", "namespace": NAMESPACE, "port": 443});
        ensure!(found["spec"]["service"] == expected, "{found}");
        ensure!(found["spec"]["insecureSkipTLSVerify"].is_null(), "{found}");
        let stack = context.stack().await?;
        stack.expect_current()?;
        stack.expect("Ready", "True", "")?;
        stack.expect_finding("kubectl delete deployment --namespace kube-system metrics-server")?;
        Ok(())
    })
    .await
}

/// Spec and labels.
async fn api_service(context: &Context) -> Result<Value> {
    let args = ["get", "apiservices", API_SERVICE, "--output=json"];
    let found: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    Ok(json!({"spec": found["spec"], "labels": found["metadata"]["labels"]}))
}
