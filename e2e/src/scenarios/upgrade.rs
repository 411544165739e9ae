//! An upgrade of everything, and the way back, that nobody notices.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::context::Context;
use super::load;
use super::wait::eventually;
use crate::images::{PREVIOUS_REFERENCE, metricsstack_reference};
use crate::test::install_yaml::NAMESPACE;
use crate::{paths, previous};

/// Label of a namespace: which Pods are admitted.
const ADMISSION: &str = "pod-security.kubernetes.io/enforce";
const CRD: &str = "metricsstacks.metricsstack.dev";
/// Where the CRD has the fields of a spec.
const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
/// The CRD in a checkout.
const CRD_FILE: &str = "crds/metricsstacks.metricsstack.dev.yaml";
/// A field that no version knows.
const UNKNOWN: &str = "future";
/// Time for every replica to be replaced, one after the other.
const REPLACED_WITHIN: Duration = Duration::from_secs(150);

/// Helm brings operator, metrics-api and CRD from this version to the one before and back, each operator also works with
/// the CRD of a later one, and this one with that of the one before, while metrics are read all the time: no read fails.
pub(super) async fn there_and_back_fails_no_read(context: &Context) -> Result<()> {
    context.working_stack().await?;
    // Under the strictest Pod Security level.
    let label = ["label", "--overwrite", "namespace", NAMESPACE];
    context
        .kubectl(&[label.as_slice(), &[&format!("{ADMISSION}=restricted")]].concat())
        .await?;
    let worked = there_and_back(context).await;
    context
        .kubectl(&[label.as_slice(), &[&format!("{ADMISSION}-")]].concat())
        .await?;
    worked
}

async fn there_and_back(context: &Context) -> Result<()> {
    let previous = Some(previous::folder()).filter(|folder| folder.is_dir());
    // A replica of the version before is ready before its containers have a usage: nodes alone are always there.
    let ((), down) = load::of_nodes_during(context, downgrade(context, previous.clone())).await?;
    load::each_replica_answers(context).await?;
    let ((), up) = load::during(context, upgrade(context, previous)).await?;
    for (what, outcome) in [("the downgrade", down), ("the upgrade after it", up)] {
        context.say(format_args!(
            "{what}: {} reads answered, {} failed",
            outcome.answered,
            outcome.failed.len()
        ));
        outcome.expect_no_failure().context(what)?;
    }
    Ok(())
}

async fn downgrade(context: &Context, previous: Option<PathBuf>) -> Result<()> {
    // Without the history the image is of this version, and so the chart has to be.
    let checkout = previous.unwrap_or_else(paths::workspace);
    context
        .install_from(&checkout, &["--set", &format!("image={PREVIOUS_REFERENCE}")])
        .await?;
    replaced(context, PREVIOUS_REFERENCE).await?;
    works_with_a_later_crd(context)
        .await
        .context("the version before this one")
}

async fn upgrade(context: &Context, previous: Option<PathBuf>) -> Result<()> {
    context.install().await?;
    replaced(context, &metricsstack_reference()).await?;
    works_with_a_later_crd(context).await?;
    if let Some(previous) = previous {
        works_with_an_earlier_crd(context, previous).await?;
    }
    context.install().await?;
    context.apply_stack(&Value::Null).await?;
    context.ready().await?;
    Ok(())
}

/// A field that the operator does not know is none of its business.
async fn works_with_a_later_crd(context: &Context) -> Result<()> {
    let unknown = json!({"type": "string"});
    let patch = json!([{"op": "add", "path": format!("{FIELDS}/{UNKNOWN}"), "value": unknown}]);
    let patch = format!("--patch={patch}");
    context
        .kubectl(&["patch", "customresourcedefinition", CRD, "--type=json", &patch])
        .await?;
    takes_up(context, &json!({UNKNOWN: "of a later version"}))
        .await
        .context("with a field of a later version")
}

/// What the CRD does not have is not kept of the status, and everything else works.
async fn works_with_an_earlier_crd(context: &Context, previous: PathBuf) -> Result<()> {
    let file = previous.join(CRD_FILE);
    let file = file.to_str().context("the repository's path is not UTF-8")?;
    context.kubectl(&["replace", "--filename", file]).await?;
    // Another generation that replaces no Pod: the default, said.
    takes_up(context, &json!({"metricsApi": {"logLevel": "info"}}))
        .await
        .context("with the CRD of the version before this one")
}

async fn takes_up(context: &Context, spec: &Value) -> Result<()> {
    context.apply_stack(spec).await?;
    context.ready().await.map(drop)
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
