//! An upgrade of everything, and the way back, that nobody notices.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::context::Context;
use super::load;
use super::wait::eventually;
use crate::images::metricsstack_reference;
use crate::test::install_yaml::{NAMESPACE, RELEASE};

/// Another name of the image: what differs between two versions for kube-apiserver and kubelet.
const NEXT: &str = "metricsstack/metricsstack:next";
/// Label of a namespace: which Pods are admitted.
const ADMISSION: &str = "pod-security.kubernetes.io/enforce";
const CRD: &str = "metricsstacks.metricsstack.dev";
/// Where the CRD has the fields of a spec.
const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
/// A field that the CRD of an older version does not have.
const ADDED: &str = "monitoring";
/// A field that the operator does not know.
const UNKNOWN: &str = "future";
/// Time for every replica to be replaced, one after the other.
const REPLACED_WITHIN: Duration = Duration::from_secs(150);

/// Helm brings the operator and metrics-api to another image, from a CRD that lacks a field, and back, under a CRD that
/// has one more, while metrics are read all the time: no read fails.
pub(super) async fn there_and_back_fails_no_read(context: &Context) -> Result<()> {
    context.working_stack().await?;
    for node in 1..=context.cluster.nodes() {
        let mut tag = context.cluster.node_command(node, "ctr")?;
        let of_docker = |name: &str| format!("docker.io/{name}");
        tag.args(["--namespace=k8s.io", "images", "tag", "--force"])
            .args([of_docker(&metricsstack_reference()), of_docker(NEXT)]);
        crate::command::output(tag).await?;
    }
    // Under the strictest Pod Security level.
    let label = ["label", "--overwrite", "namespace", NAMESPACE];
    context
        .kubectl(&[label.as_slice(), &[&format!("{ADMISSION}=restricted")]].concat())
        .await?;
    let worked = load::during(context, Box::pin(there_and_back(context))).await;
    context
        .kubectl(&[label.as_slice(), &[&format!("{ADMISSION}-")]].concat())
        .await?;
    let ((), outcome) = worked?;
    context.say(format_args!(
        "operator and metrics-api replaced twice, {} reads answered, {} failed",
        outcome.answered,
        outcome.failed.len()
    ));
    outcome
        .expect_no_failure()
        .context("during an upgrade and the way back")
}

async fn there_and_back(context: &Context) -> Result<()> {
    patch_crd(
        context,
        &json!([{"op": "remove", "path": format!("{FIELDS}/{ADDED}")}]),
    )
    .await?;
    context.install_with(&["--set", &format!("image={NEXT}")]).await?;
    replaced(context, NEXT).await?;
    let field = format!(
        "--output=jsonpath={{{}.{ADDED}}}",
        FIELDS.replace('/', ".").replace(".0.", "[0].")
    );
    let field = context
        .kubectl(&["get", "customresourcedefinition", CRD, &field])
        .await?;
    ensure!(!field.is_empty(), "the upgrade did not bring the field {ADDED}");

    let unknown = json!({"type": "string"});
    patch_crd(
        context,
        &json!([{"op": "add", "path": format!("{FIELDS}/{UNKNOWN}"), "value": unknown}]),
    )
    .await?;
    context
        .apply_stack(&json!({UNKNOWN: "of a later version"}))
        .await?;
    context.ready().await.context("with a field of a later version")?;
    context
        .helm(&[
            "rollback",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout",
            "90s",
        ])
        .await?;
    replaced(context, &metricsstack_reference()).await?;
    context.ready().await?;
    context.apply_stack(&Value::Null).await?;
    context.ready().await?;
    Ok(())
}

async fn patch_crd(context: &Context, patch: &Value) -> Result<()> {
    let patch = format!("--patch={patch}");
    context
        .kubectl(&["patch", "customresourcedefinition", CRD, "--type=json", &patch])
        .await?;
    Ok(())
}

/// Waits until every pod is of this image, and the others are gone.
async fn replaced(context: &Context, image: &str) -> Result<()> {
    eventually(format!("all run {image}"), REPLACED_WITHIN, async || {
        let images = "--output=jsonpath={.items[*].spec.containers[*].image}";
        let images = context
            .kubectl(&["get", "pods", "--namespace", NAMESPACE, images])
            .await?;
        let images: Vec<_> = images.split_whitespace().collect();
        // The operator, and as many replicas as find nodes.
        let expected = 1 + usize::from(context.cluster.nodes());
        ensure!(
            images.len() == expected && images.iter().all(|found| *found == image),
            "they run {images:?}"
        );
        Ok(())
    })
    .await?;
    context.ready().await?;
    Ok(())
}
