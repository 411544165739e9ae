//! Programs in Go read metrics by the types of k8s.io/metrics, from JSON and from protobuf.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::names::METRICS_VERSIONS;
use serde_json::Value;

use super::context::Context;
use super::wait::eventually;
use crate::{command, tools};

/// Time until two reads, one after the other, are of the same samples.
const AGREED_WITHIN: Duration = Duration::from_secs(90);
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const NAMESPACE: &str = "kube-system";
const POD: &str = "etcd-node-1";

/// Both encodings of both versions say the same, in the encoding that was asked for.
pub(super) async fn reads_both_encodings(context: &Context) -> Result<()> {
    context.working_stack().await?;
    // Samples may change between the first read and the last.
    eventually("all encodings and versions agree", AGREED_WITHIN, async || {
        let documents = read(context).await?;
        let mut seen = Vec::new();
        for document in &documents {
            let text = |key: &str| document[key].as_str().unwrap_or_default();
            let (version, encoding) = (text("version"), text("encoding"));
            ensure!(
                text("answered").starts_with(encoding),
                "{version}: asked for {encoding}, answered {:?}",
                document["answered"]
            );
            seen.push((version, encoding));
            expect_content(document).with_context(|| format!("{version}, {encoding}"))?;
        }
        for version in METRICS_VERSIONS {
            for encoding in [JSON, PROTOBUF] {
                ensure!(
                    seen.contains(&(version, encoding)),
                    "{version}, {encoding}: not in {seen:?}"
                );
            }
        }
        let first = documents.first().context("nothing was read")?;
        for document in &documents {
            for part in ["nodes", "node", "pods", "pod", "selected"] {
                let (one, other) = (
                    without_api_version(&first[part]),
                    without_api_version(&document[part]),
                );
                ensure!(one == other, "{part}: {one} and {other}");
            }
        }
        Ok(())
    })
    .await
}

/// What the program prints: one document a line.
async fn read(context: &Context) -> Result<Vec<Value>> {
    let mut command = context.cluster.command(tools::TYPED_CLIENT);
    command.args(["node-1", NAMESPACE, POD]).kill_on_drop(true);
    let printed = command::output(command).await?;
    let documents = printed.lines().map(serde_json::from_str);
    documents
        .collect::<Result<_, _>>()
        .with_context(|| format!("not JSON: {printed}"))
}

fn expect_content(document: &Value) -> Result<()> {
    let items = |part: &str| document[part]["items"].as_array().map_or(0, Vec::len);
    ensure!(items("nodes") == 2, "nodes: {}", document["nodes"]);
    ensure!(items("pods") > 1, "pods: {}", document["pods"]);
    ensure!(items("selected") == 1, "selected: {}", document["selected"]);
    ensure!(
        document["node"]["metadata"]["name"] == "node-1",
        "node: {}",
        document["node"]
    );
    let pod = &document["pod"];
    ensure!(
        pod["metadata"]["name"] == POD && pod["metadata"]["namespace"] == NAMESPACE,
        "pod: {pod}"
    );
    let usage = &pod["containers"][0]["usage"];
    ensure!(
        usage["cpu"].is_string() && usage["memory"].is_string(),
        "usage: {usage}"
    );
    Ok(())
}

/// Client-go fills kind and apiVersion in by the encoding: from JSON it keeps them, from protobuf it does not.
fn without_api_version(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(items) = fields.get_mut("items").and_then(Value::as_array_mut) {
            for item in items {
                *item = without_api_version(item);
            }
        }
    }
    value
}
